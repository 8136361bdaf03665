package attach

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// privately calls f with a /run of its own; root is the way there from other threads.
// The thread ends with it; the main one, which Go does not end, and whose mounts are
// those of the process to others, only waits.
func privately(t *testing.T, f func(root string) error) {
	t.Helper()
	if os.Geteuid() != 0 {
		nstest.Skip(t, "a mount namespace needs root")
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			result <- ownRun(f)
			return
		}
		inner := make(chan error)
		go func() { inner <- ownRun(f) }()
		err := <-inner
		runtime.UnlockOSThread()
		result <- err
	}()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func ownRun(f func(root string) error) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	return f(fmt.Sprintf("/proc/self/task/%d/root", unix.Gettid()))
}

const short = 50 * time.Millisecond

// Who has waited for a lock on a file that somebody has removed or moved meanwhile has that
// of the new file, which those who come later see. The agent hears of it.
func TestLockOfALostFile(t *testing.T) {
	t.Parallel()
	for what, lose := range map[string]func(string) error{
		"removed": os.Remove,
		"moved":   func(path string) error { return os.Rename(path, path+".old") },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			loseLocks(t, lose)
		})
	}
}

func loseLocks(t *testing.T, lose func(path string) error) {
	t.Helper()
	privately(t, func(root string) error {
		agent, err := AnnounceAgent()
		if err != nil {
			return err
		}
		if err := agent.Check(); err != nil {
			t.Error(err)
		}
		unlock, err := lock("br0")
		if err != nil {
			return err
		}
		time.AfterFunc(2*short, func() {
			if err := errors.Join(lose(root+lockFile), unlock()); err != nil {
				t.Error(err)
			}
		})
		mine, err := lock("br0")
		if err != nil {
			return err
		}
		if _, err := lockWithin("br0", short); !errors.Is(err, ErrBusy) {
			t.Errorf("somebody else has it as well: %v", err)
		}
		if err := agent.Check(); !errors.Is(err, errRemoved) {
			t.Errorf("the agent hears %v, want %v", err, errRemoved)
		}
		return errors.Join(mine(), agent.Close())
	})
}

// Where the removed file is mounted, as in a container, nothing can be locked.
func TestLockOfARemovedMount(t *testing.T) {
	t.Parallel()
	privately(t, func(string) error {
		for _, name := range []string{"/run/host", lockFile} {
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				return err
			}
		}
		if err := unix.Mount("/run/host", lockFile, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		agent, err := AnnounceAgent()
		if err != nil {
			return err
		}
		if err := errors.Join(agent.Check(), exclusively(guardLock, func() error { return nil }), os.Remove("/run/host")); err != nil {
			t.Error(err)
		}
		if err := agent.Check(); !errors.Is(err, errRemoved) {
			t.Errorf("the agent hears %v, want %v", err, errRemoved)
		}
		err = exclusively(guardLock, func() error { t.Error("done without the lock"); return nil })
		if !errors.Is(err, errRemoved) {
			t.Errorf("%v, want %v", err, errRemoved)
		}
		return agent.Close()
	})
}

// The container runtime makes a directory of a mount whose file is gone.
func TestLockInPlaceOfADirectory(t *testing.T) {
	t.Parallel()
	privately(t, func(string) error {
		if err := os.Mkdir(lockFile, 0o755); err != nil {
			return err
		}
		unlock, err := lock("br0")
		if err != nil {
			return err
		}
		if info, err := os.Stat(lockFile); err != nil || !info.Mode().IsRegular() {
			t.Errorf("it is %v, %v", info, err)
		}
		return unlock()
	})
}

// A wait that is given up leaves no thread in a program that goes on, but for one of those
// that wait in the kernel. It runs before those that run at the same time.
func TestWaitsLeaveNoThreads(t *testing.T) {
	privately(t, func(string) error {
		unlock, err := lock("br0")
		if err != nil {
			return err
		}
		before := threads(t)
		for range 30 {
			if _, err := lockWithin("br0", time.Millisecond); !errors.Is(err, ErrBusy) {
				t.Error(err)
			}
		}
		const few = 10 // of Go's own
		if after := threads(t); after > before+few {
			t.Errorf("%d threads, %d before", after, before)
		}
		return unlock()
	})
}

func threads(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Error(err)
	}
	return len(all)
}
