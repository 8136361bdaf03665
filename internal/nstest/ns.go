// Package nstest gives a test network namespaces of its own, their networking
// as comparable text, and raw frames on their devices.
//
// It knows the kernel and iproute2, nothing of tapbridge: what a port should
// look like is the business of the tests that import it.
package nstest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is a network namespace that lives as long as the test that made it.
type NS struct {
	// Path is the file the namespace is mounted on, as a runtime would pass
	// it in CNI_NETNS.
	Path string

	t      testing.TB
	fd     netns.NsHandle
	handle *netlink.Handle
}

// New makes a network namespace with its loopback up. It skips the test where
// that is not permitted.
func New(t testing.TB) *NS {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "a network namespace needs root")
	}
	return mounted(t, mountNew)
}

// mounted makes a namespace that mount puts on a path.
func mounted(t testing.TB, mount func(path string) error) *NS {
	t.Helper()
	n := &NS{Path: filepath.Join(t.TempDir(), "netns"), t: t, fd: netns.None()}
	t.Cleanup(n.remove)
	if err := n.create(mount); err != nil {
		t.Fatalf("create a network namespace: %v", err)
	}
	return n
}

// Skip skips the test for the given reason, or fails it where
// TAPBRIDGE_TEST_REQUIRE=all says that nothing may be skipped.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("TAPBRIDGE_TEST_REQUIRE") == "all" {
		t.Fatalf("TAPBRIDGE_TEST_REQUIRE=all forbids to skip: "+format, args...)
	}
	t.Skipf(format, args...)
}

// Do calls f on a thread inside the namespace. Goroutines that f starts run
// outside of it. f may end the test by t.Fatal.
func (n *NS) Do(f func()) {
	n.t.Helper()
	if err := n.within(func() error { f(); return nil }); err != nil {
		n.t.Fatalf("run in namespace %q: %v", n.Path, err)
	}
}

func (n *NS) within(f func() error) error {
	return away(func() error { return netns.Set(n.fd) }, f)
}

// Handle is a netlink handle whose sockets are in the namespace.
func (n *NS) Handle() *netlink.Handle { return n.handle }

func (n *NS) create(mount func(path string) error) error {
	if err := os.WriteFile(n.Path, nil, 0o600); err != nil {
		return err
	}
	if err := mount(n.Path); err != nil {
		return err
	}
	return n.open()
}

// mountNew works in a goroutine of its own so that a thread that cannot come
// home takes nobody with it.
func mountNew(path string) error {
	result := make(chan error, 1)
	go func() {
		result <- away(
			func() error { return unix.Unshare(unix.CLONE_NEWNET) },
			func() error { return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "") },
		)
	}()
	return <-result
}

func (n *NS) open() (err error) {
	if n.fd, err = netns.GetFromPath(n.Path); err != nil {
		return err
	}
	if n.handle, err = netlink.NewHandleAt(n.fd, unix.NETLINK_ROUTE); err != nil {
		return err
	}
	lo, err := n.handle.LinkByName("lo")
	if err != nil {
		return err
	}
	return n.handle.LinkSetUp(lo)
}

// remove leaves the temp dir to the test. The detach is lazy because another
// mount namespace may have copied the mount.
func (n *NS) remove() {
	if n.handle != nil {
		n.handle.Close()
	}
	if n.fd.IsOpen() {
		_ = n.fd.Close()
	}
	err := unix.Unmount(n.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		n.t.Errorf("unmount %q: %v", n.Path, err)
	}
}

// away calls f on a thread that enter has taken to another namespace, and
// brings the thread home. One that cannot come home stays locked: the runtime
// then ends it together with its goroutine. Throwing every thread away would
// be simpler, but Go parks the main thread instead of ending it, and that
// would hold the namespace for ever.
func away(enter, f func() error) (err error) {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	defer func() {
		if back := netns.Set(home); back != nil {
			err = errors.Join(err, fmt.Errorf("return to the thread's own namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
	}()
	if err := enter(); err != nil {
		return err
	}
	return f()
}
