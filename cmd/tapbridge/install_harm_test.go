package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// Whenever an installation is killed, the old file is there or the new one, whole,
// and the next installation succeeds and cleans up.
func killed(t *testing.T, old, fresh string) {
	if _, err := exec.LookPath("strace"); err != nil {
		nstest.Skip(t, "no strace")
	}
	dir := t.TempDir()
	succeed(t, old, "install", dir)
	hit, left, kept := 0, 0, 0
	for call, last := range map[string]int{"openat": 12, "flock": 1, "fstat": 3, "copy_file_range": 2, "fchmod": 1, "fsync": 2, "lseek": 8, "read": 200, "renameat": 1, "close": 5} {
		for nth := 1; nth <= last; nth += 1 + nth/4 {
			if kill(t, call, nth, fresh, "install", dir) {
				hit++
			}
			whole(t, filepath.Join(dir, "tapbridge"), old, fresh)
			if len(names(t, dir)) > 1 {
				left++
			}
			if content(t, filepath.Join(dir, "tapbridge")) == content(t, old) {
				kept++
			}
			succeed(t, fresh, "install", dir)
			succeed(t, old, "install", dir)
			holds(t, dir, old)
		}
	}
	t.Logf("%d installations were killed, %d of them left a file behind, the old version was kept %d times", hit, left, kept)
	if hit < 10 || left < 3 || kept < 10 {
		t.Error("the kills did not reach the installation")
	}
}

// kill runs a program that is killed at its nth call of a kind.
func kill(t *testing.T, call string, nth int, command ...string) bool {
	t.Helper()
	fault := fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, nth)
	cmd := exec.Command("strace", append([]string{"-f", "-qq", "-o", os.DevNull, "-e", "trace=" + call, "-e", fault}, command...)...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1") // strace counts each thread's calls for itself
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.Exited() {
		t.Fatalf("%q: %v: %s", cmd.Args, err, out)
	}
	return err != nil
}

func whole(t *testing.T, path string, programs ...string) {
	t.Helper()
	if !slices.ContainsFunc(programs, func(p string) bool { return content(t, p) == content(t, path) }) {
		t.Fatalf("%s is none of %q", path, programs)
	}
}

// While versions are installed in turns, every call of the plugin succeeds, and one
// that runs all the while keeps its own.
func underUse(t *testing.T, one, two string) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tapbridge")
	succeed(t, one, "install", dir)
	running := stay(t, path, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	calls := make([]int, 2)
	for i := range calls {
		callers.Go(func() {
			for ; ctx.Err() == nil; calls[i]++ {
				out, err := exec.Command(path, "version").CombinedOutput()
				if err != nil || !strings.HasPrefix(string(out), "tapbridge one,") && !strings.HasPrefix(string(out), "tapbridge two,") {
					t.Errorf("call %d: %v: %s", calls[i], err, out)
					return
				}
			}
		})
	}
	for i := range 200 {
		succeed(t, []string{two, one}[i%2], "install", dir)
	}
	cancel()
	callers.Wait()
	holds(t, dir, one)
	running.end(t)
	t.Logf("%v calls during 200 installations", calls)
	if calls[0] < 10 || calls[1] < 10 {
		t.Error("there were hardly any calls")
	}
}

// Installations at the same time do not take each other's files for left ones.
func atOnce(t *testing.T, one, two string) {
	dir := t.TempDir()
	var done sync.WaitGroup
	for i := range 20 {
		done.Go(func() {
			if out, err := exec.Command([]string{one, two}[i%2], "install", dir).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	done.Wait()
	holds(t, dir, one, two)
}

// staying is an installation with -stay, the first process of a pid namespace, as
// in a container.
type staying struct {
	cmd *exec.Cmd
	dir string
}

func stay(t *testing.T, program, dir string) *staying {
	t.Helper()
	if os.Geteuid() != 0 {
		nstest.Skip(t, "a pid namespace needs root")
	}
	cmd := exec.Command(program, "install", "-stay", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line := make([]byte, 200)
	if n, err := out.Read(line); !strings.Contains(string(line[:n]), " is now version ") {
		t.Fatalf("it says %q: %v", line[:n], err)
	}
	return &staying{cmd, dir}
}

func (s *staying) end(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	deaf := time.AfterFunc(time.Minute, func() { _ = s.cmd.Process.Kill() })
	defer deaf.Stop()
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("on SIGTERM it ended with %v", err)
	}
	only(t, s.dir, "tapbridge") // pods are deleted after the DaemonSet
}

func stays(t *testing.T, one, _ string) {
	stay(t, one, t.TempDir()).end(t)
}
