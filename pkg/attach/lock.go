package attach

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/remedy"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/guard"
)

const (
	// lockFile holds every lock as one byte, at an offset that stands for the
	// bridge: one file for the whole node, and none to clean up.
	lockFile = "/run/tapbridge.lock"
	// lockWait bounds the wait for the ADDs before us.
	lockWait = 30 * time.Second
)

// Locks of what the attachments of all bridges share. No bridge can have such a
// name.
const (
	gatewayLock = "/gateway" // the sysctls and the masquerade rules
	guardLock   = "/guard"   // the sets of all guarded ports
)

// errRemoved says that a lock excludes nobody who comes now.
var errRemoved = errors.New(lockFile + " has been moved or removed while it was in use, and others lock another file by now: start this program again")

// lock keeps two ADDs on one bridge from deciding at the same time who has a MAC
// address; name is the bridge's, or one of the above. The kernel drops it with the
// process, however that ends. ErrBusy when it cannot be had within lockWait.
func lock(name string) (unlock func() error, err error) { return lockWithin(name, lockWait) }

// exclusively does something while nobody else holds the lock of that name. Where
// nothing can be locked, for want of a writable /run, nobody does.
func exclusively(name string, do func() error) error {
	unlock, err := lock(name)
	if err == nil {
		defer unlock()
	} else if !errors.Is(err, unix.EROFS) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return do()
}

// Calmly looks at what is on a bridge, and where that fails looks again while no ADD
// and no agent changes it: what they are at is no drift. It waits a second for that,
// once; where the lock is kept for longer, the second look is as good as the first.
func (s *Site) Calmly(bridge string, look func() error) error {
	if err := look(); err == nil || s.hurried[bridge] {
		return err
	}
	unlock, err := lockWithin(bridge, repairWait)
	if err == nil {
		defer unlock()
	} else {
		if s.hurried == nil {
			s.hurried = map[string]bool{}
		}
		s.hurried[bridge] = true
	}
	defer func(seen guard.Observed) { s.guards = seen }(s.guards)
	s.guards = nil
	return look()
}

// lockWithin begins again where the file was moved or removed while it waited.
func lockWithin(name string, wait time.Duration) (unlock func() error, err error) {
	const attempts = 10
	for range attempts {
		var f *os.File
		if f, err = acquire(name, wait); err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, errRemoved) {
			break
		}
	}
	return nil, fmt.Errorf("lock %s: %w", locked(name), err)
}

func acquire(name string, wait time.Duration) (*os.File, error) {
	f, err := openLocks()
	if err != nil {
		return nil, err
	}
	at, err := offset(name)
	if err == nil {
		err = queue(f, at, wait)
	}
	if err == nil {
		err = linked(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openLocks makes the file if need be. Where it is an empty directory, that is what
// containerd has made for the agent's mount when there was no file
// (pkg/cri, WithMounts).
func openLocks() (*os.File, error) {
	open := func() (int, error) {
		return unix.Open(lockFile, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	}
	fd, err := open()
	if errors.Is(err, unix.EISDIR) {
		_ = unix.Rmdir(lockFile) // or somebody else has
		fd, err = open()
	}
	if err != nil {
		return nil, remedy.Mount(fmt.Errorf("open %s: %w", lockFile, err), filepath.Dir(lockFile))
	}
	return os.NewFile(uintptr(fd), lockFile), nil
}

// linked is errRemoved where who comes now opens another file. In a container the path
// may still lead to the old one, which is mounted there, but has no name any more.
func linked(f *os.File) error {
	var st, there unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("look at %s: %w", lockFile, err)
	}
	err := unix.Lstat(lockFile, &there)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("look at %s: %w", lockFile, err)
	}
	if err != nil || st.Nlink == 0 || there.Dev != st.Dev || there.Ino != st.Ino {
		return errRemoved
	}
	return nil
}

func locked(name string) string {
	if shared, is := strings.CutPrefix(name, "/"); is {
		return "the node's " + shared
	}
	return fmt.Sprintf("bridge %q", name)
}

// offset is the byte of a lock. Bridges of one name in two namespaces have
// different ones; two that share one by chance only wait for each other.
func offset(name string) (int64, error) {
	own, err := rtnl.Current()
	if err != nil {
		return 0, err
	}
	defer own.Close()
	inode, err := own.Inode()
	if err != nil {
		return 0, err
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%s", inode, name)
	return int64(h.Sum64() >> 1), nil
}

// queued is true while somebody of this process waits in the kernel.
var queued atomic.Bool

// queue takes the lock if it is free. Otherwise it waits in the kernel, in a row with
// others: who only looks now and then gets no turn while pods start. A wait that is
// given up leaves a thread there until the lock is free; so that a program that goes on
// does not collect them, only one waits like that.
func queue(f *os.File, at int64, wait time.Duration) error {
	if err := setLock(int(f.Fd()), unix.F_OFD_SETLK, at); !errors.Is(err, unix.EAGAIN) {
		return err
	}
	if !queued.CompareAndSwap(false, true) {
		return poll(f, at, wait)
	}
	own, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0) // f may be closed before it is its turn
	if err != nil {
		queued.Store(false)
		return fmt.Errorf("wait for %s: %w", lockFile, err)
	}
	got := make(chan error, 1)
	go func() {
		defer queued.Store(false)
		defer unix.Close(own)
		got <- setLock(own, unix.F_OFD_SETLKW, at)
	}()
	select {
	case err := <-got:
		return err
	case <-time.After(wait):
		return heldFor(wait)
	}
}

// poll is queue for who comes while another one of the process waits there.
func poll(f *os.File, at int64, wait time.Duration) error {
	const pause = 10 * time.Millisecond
	for end := time.Now().Add(wait); ; time.Sleep(pause) {
		if err := setLock(int(f.Fd()), unix.F_OFD_SETLK, at); !errors.Is(err, unix.EAGAIN) {
			return err
		}
		if time.Now().After(end) {
			return heldFor(wait)
		}
	}
}

func heldFor(wait time.Duration) error {
	return fmt.Errorf("another process has held it for %v: %w", wait, ErrBusy)
}

// setLock takes an open file description lock: unlike those of a process, it
// also excludes another goroutine of ours.
func setLock(fd, command int, at int64) error {
	for {
		l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: at, Len: 1}
		err := unix.FcntlFlock(uintptr(fd), command, &l)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
