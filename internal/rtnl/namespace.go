package rtnl

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is an open network namespace: a descriptor. Neither Go's poller nor
// /proc's directories of this process are needed for one, which the kernel and the
// runtime would make first: 0.1 ms in all.
type Namespace int

// errNoNamespace is about a file that is there.
var errNoNamespace = errors.New("it is not a network namespace")

// Current is the namespace of the thread. Only NET_ADMIN may ask a socket for it.
func Current() (Namespace, error) {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(socket)
	fd, err := unix.IoctlRetInt(socket, unix.SIOCGSKNS)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("the thread's network namespace: %w", err)
	}
	return Namespace(fd), nil
}

// openNamespace is for the path of one.
func openNamespace(path string) (Namespace, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open network namespace %q: %w", path, err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		unix.Close(fd)
		return -1, fmt.Errorf("open network namespace %q: %w", path, errors.Join(err, errNoNamespace))
	}
	return Namespace(fd), nil
}

// Close gives the descriptor back.
func (n Namespace) Close() { unix.Close(int(n)) }

// Inode identifies the namespace on the node.
func (n Namespace) Inode() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(n), &st); err != nil {
		return 0, fmt.Errorf("stat the network namespace: %w", err)
	}
	return st.Ino, nil
}

// attempts is how often the way home is tried: nothing could be undone from a pod.
const attempts = 3

// inside moves the caller's own thread and brings it back: another one would cost
// as much as a tap. A thread that cannot come home is used for nothing else; the
// netlink library would let it go on (vishvananda/netlink 1.3.1, executeInNetns).
func (n Namespace) inside(f func() error) error {
	runtime.LockOSThread()
	home, err := Current()
	if err == nil {
		defer home.Close()
		err = unix.Setns(int(n), unix.CLONE_NEWNET)
	}
	if errors.Is(err, unix.EINVAL) { // it is of another kind
		err = errNoNamespace
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	err = f()
	var lost error
	for range attempts {
		if lost = unix.Setns(int(home), unix.CLONE_NEWNET); lost == nil {
			runtime.UnlockOSThread()
			return err
		}
	}
	return errors.Join(err, fmt.Errorf("leave the network namespace: %w", lost))
}
