package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// TestMain builds what `make demo` runs.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // where each test says so
	}
	dir, err := os.MkdirTemp("", "tapbridge-demo-test")
	if err != nil {
		panic(err)
	}
	built = dir
	for target, in := range map[string]string{"tapbridge": "../..", "demo": ".."} {
		source := map[string]string{"tapbridge": "./cmd/tapbridge", "demo": "./demo"}[target]
		build := exec.Command("go", "build", "-o", filepath.Join(dir, target), source)
		build.Dir, build.Env = in, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v: %s\n", target, err, out)
			os.Exit(1)
		}
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var built string

// demo is the demo, ready to start; its namespaces bear its pid.
func demo(t *testing.T) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	if built == "" {
		nstest.Skip(t, "the demo makes network namespaces, which needs root")
	}
	out := &bytes.Buffer{}
	cmd := exec.Command(filepath.Join(built, "demo"), "-bin", built, "-conflist", "../../examples/tap.conflist")
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

func leftovers(t *testing.T, pid int) []string {
	t.Helper()
	left, err := filepath.Glob(fmt.Sprintf("/run/netns/tapbridge-demo-%d-*", pid))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestDemo(t *testing.T) {
	t.Parallel()
	cmd, out := demo(t)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out.String(), "done      everything was as it should be, and everything is removed") {
		t.Errorf("the demo does not end well:\n%s", out)
	}
	if left := leftovers(t, cmd.Process.Pid); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// Whenever it is interrupted, the demo takes its node away.
func TestInterruptedDemo(t *testing.T) {
	for _, after := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			cmd, out := demo(t)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it fails, or had ended before
			if left := leftovers(t, cmd.Process.Pid); len(left) > 0 {
				t.Errorf("left behind: %q\n%s", left, out)
			}
		})
	}
}
