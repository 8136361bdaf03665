package tap

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

var (
	// ErrUnmapped says that an id does not exist in a user namespace.
	ErrUnmapped = errors.New("the pod's user namespace has no such id")
	// ErrUnsupported says that the kernel lacks what is asked for.
	ErrUnsupported = errors.New("the kernel does not support it")
)

// In takes owner and group for ids of the user namespace that owns the network
// namespace of c, and returns what they are in our own: the one in which the
// kernel takes and tells them (TUNSETOWNER, tun_fill_info). Errors:
// ErrUnmapped, ErrUnsupported before Linux 6.3.
func (a Access) In(c *rtnl.Conn) (Access, error) {
	owner, err := ownerOf(c)
	if err != nil || owner == nil {
		return a, err
	}
	defer owner.Close()
	if a.Owner, err = translate(a.Owner, "uid", owner); err != nil {
		return a, fmt.Errorf("owner %w", err)
	}
	if a.Group, err = translate(a.Group, "gid", owner); err != nil {
		return a, fmt.Errorf("group %w", err)
	}
	return a, nil
}

// ownerOf is the user namespace that owns the network namespace; nil when that
// is our own, or when the kernel has no others.
func ownerOf(c *rtnl.Conn) (*os.File, error) {
	ours, err := os.Stat("/proc/self/ns/user")
	if c.FD() < 0 || errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	fd, err := unix.IoctlRetInt(c.FD(), unix.NS_GET_USERNS)
	if err != nil {
		return nil, fmt.Errorf("user namespace of the pod's network namespace: %w", err)
	}
	owner := os.NewFile(uintptr(fd), "user namespace")
	theirs, err := owner.Stat()
	if err != nil || os.SameFile(ours, theirs) {
		return nil, errors.Join(err, owner.Close())
	}
	return owner, nil
}

// translate asks the kernel by way of a file system that nobody else sees: its
// root belongs to the id, and is looked at through a mount that is mapped by
// the user namespace. A namespace's map can be read in /proc of its processes
// only, and often none is in it when a runtime calls its plugins (containerd's
// UnshareAfterEnterUserns kills the one that made it). kind is the mount option
// that sets the id.
func translate(id int64, kind string, ns *os.File) (int64, error) {
	if id == Anyone {
		return id, nil
	}
	mapped, err := mountedAs(id, kind, ns)
	if err != nil {
		return 0, fmt.Errorf("%d of the pod's user namespace: %w", id, err)
	}
	nobody, err := overflow(kind)
	if err == nil && mapped == nobody {
		err = ErrUnmapped
	}
	if err != nil {
		return 0, fmt.Errorf("%d: %w", id, err)
	}
	return mapped, nil
}

func mountedAs(id int64, kind string, ns *os.File) (int64, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("fsopen tmpfs: %w", err)
	}
	defer unix.Close(fs)
	if err := errors.Join(unix.FsconfigSetString(fs, kind, strconv.FormatInt(id, 10)), unix.FsconfigCreate(fs)); err != nil {
		return 0, fmt.Errorf("make a tmpfs: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(root)
	by := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	if err := unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &by); err != nil {
		return 0, fmt.Errorf("%w: id-mapped mounts of tmpfs, Linux 6.3 has them: %w", ErrUnsupported, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return 0, err
	}
	if kind == "gid" {
		return int64(st.Gid), nil
	}
	return int64(st.Uid), nil
}

// overflow is the id that stands for all those without one
// (user_namespaces(7)).
func overflow(kind string) (int64, error) {
	text, err := os.ReadFile("/proc/sys/kernel/overflow" + kind)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}
