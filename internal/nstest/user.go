package nstest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// NewUser makes a user namespace with these maps, and a network namespace that
// belongs to it. Both live as long as the test. No process is in the user
// namespace, as when a runtime calls its plugins for a new pod; user is the
// file it is mounted on.
func NewUser(t testing.TB, uids, gids syscall.SysProcIDMap) (user string, ns *NS) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "a user namespace with a map needs root")
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{uids}, GidMappings: []syscall.SysProcIDMap{gids},
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("create a user namespace: %v", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}()
	of := func(kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", cmd.Process.Pid, kind) }
	user = filepath.Join(t.TempDir(), "userns")
	if err := os.WriteFile(user, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(of("user"), user, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount a user namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(user, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			t.Errorf("unmount %q: %v", user, err)
		}
	})
	return user, mounted(t, func(path string) error { return unix.Mount(of("net"), path, "", unix.MS_BIND, "") })
}
