package attach

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// Who may not look at every process does not take the pods of those for deserted.
func TestInhabitedNeedsToSeeAll(t *testing.T) {
	t.Parallel()
	host, pod := nstest.New(t), nstest.New(t)
	nstest.Veth(t, host, "port0", pod, "pod0")
	resident := pod.Command("setpriv", "--reuid", "107", "--regid", "107", "--clear-groups", "sleep", "60")
	if err := resident.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = resident.Process.Kill()
		_ = resident.Wait() // killed
	})
	host.Do(func() {
		s, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		l, err := s.host.LinkNamed("port0")
		if err != nil {
			t.Fatal(err)
		}
		for range 100 { // setpriv becomes another user some time after its start
			if err = without(unix.CAP_SYS_PTRACE, func() error { _, err := s.Inhabited(); return err }); err != nil {
				break
			}
		}
		if !errors.Is(err, unix.EACCES) {
			t.Errorf("without CAP_SYS_PTRACE: %v", err)
		}
		if inhabited, err := s.Inhabited(); err != nil || !inhabited[l.NetNsID] {
			t.Errorf("namespace %d is not among %v: %v", l.NetNsID, inhabited, err)
		}
	})
}

// without calls f on a thread that lacks a capability for as long.
func without(capability int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all [2]unix.CapUserData
	if err := unix.Capget(&header, &all[0]); err != nil {
		return err
	}
	less := all
	less[capability/32].Effective &^= 1 << (capability % 32)
	if err := unix.Capset(&header, &less[0]); err != nil {
		return err
	}
	return errors.Join(f(), unix.Capset(&header, &all[0]))
}
