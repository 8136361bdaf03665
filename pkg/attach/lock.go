package attach

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

const (
	// lockFile holds every lock as one byte, at an offset that stands for the
	// bridge: one file for the whole node, and none to clean up.
	lockFile = "/run/tapbridge.lock"
	// lockWait bounds the wait for the ADDs before us.
	lockWait = 30 * time.Second
)

// lock keeps two ADDs on one bridge from deciding at the same time who has a MAC
// address. The kernel drops it with the process, however that ends. ErrBusy when
// it cannot be had within lockWait.
func lock(bridge string) (unlock func() error, err error) {
	return lockWithin(bridge, lockWait)
}

func lockWithin(bridge string, wait time.Duration) (unlock func() error, err error) {
	fd, err := unix.Open(lockFile, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock bridge %q: open %s: %w", bridge, lockFile, err)
	}
	f := os.NewFile(uintptr(fd), lockFile)
	at, err := offset(bridge)
	if err == nil {
		err = hold(f, at, wait)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock bridge %q: %w", bridge, err), f.Close())
	}
	return f.Close, nil
}

// offset is the bridge's byte. Bridges of one name in two namespaces have
// different ones; two that share one by chance only wait for each other.
func offset(bridge string) (int64, error) {
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
	fmt.Fprintf(h, "%d/%s", inode, bridge)
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
