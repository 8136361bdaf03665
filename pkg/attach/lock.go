package attach

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

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

// lock keeps two ADDs on one bridge from deciding at the same time who has a MAC
// address; name is the bridge's, or one of the above. The kernel drops it with the
// process, however that ends. ErrBusy when it cannot be had within lockWait.
func lock(name string) (unlock func() error, err error) {
	return lockWithin(name, lockWait)
}

// exclusively does something while nobody else holds the lock of that name. Where
// nothing can be locked, for want of a writable /run, nobody does.
func exclusively(name string, do func() error) error {
	unlock, err := lock(name)
	if errors.Is(err, ErrBusy) {
		return err
	}
	if err == nil {
		defer unlock()
	}
	return do()
}

// Calmly looks at what is on a bridge while nobody changes it. It waits a second for
// that; then it looks all the same.
func (s *Site) Calmly(bridge string, look func() error) error {
	unlock, err := lockWithin(bridge, repairWait)
	if err == nil {
		defer unlock()
	}
	defer func(seen guard.Observed) { s.guards = seen }(s.guards)
	s.guards = nil
	return look()
}

func lockWithin(name string, wait time.Duration) (unlock func() error, err error) {
	fd, err := unix.Open(lockFile, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: open %s: %w", locked(name), lockFile, err)
	}
	f := os.NewFile(uintptr(fd), lockFile)
	at, err := offset(name)
	if err == nil {
		err = hold(f, at, wait)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", locked(name), err), f.Close())
	}
	return f.Close, nil
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

// hold takes the lock if it is free. Otherwise it waits in the kernel, in a
// goroutine that ends with the process when the wait is given up.
func hold(f *os.File, at int64, wait time.Duration) error {
	if err := setLock(f, unix.F_OFD_SETLK, at); !errors.Is(err, unix.EAGAIN) {
		return err
	}
	got := make(chan error, 1)
	go func() { got <- setLock(f, unix.F_OFD_SETLKW, at) }()
	select {
	case err := <-got:
		return err
	case <-time.After(wait):
		return fmt.Errorf("another process has held it for %v: %w", wait, ErrBusy)
	}
}

// setLock takes an open file description lock: unlike those of a process, it
// also excludes another goroutine of ours.
func setLock(f *os.File, command int, at int64) error {
	for {
		l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: at, Len: 1}
		err := unix.FcntlFlock(f.Fd(), command, &l)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
