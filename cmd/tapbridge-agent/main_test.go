package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// asAgent makes the test binary the agent itself.
const asAgent = "TAPBRIDGE_TEST_AS_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(asAgent) != "" {
		main()
	}
	os.Exit(m.Run())
}

// agentProcess is the agent in a namespace.
type agentProcess struct {
	*nstest.Cmd
	log text
}

// text can be read while it is written.
type text struct {
	mu  sync.Mutex
	all strings.Builder
}

func (t *text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.Write(b)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.String()
}

func start(t testing.TB, ns *nstest.NS, args ...string) *agentProcess {
	t.Helper()
	p := &agentProcess{Cmd: ns.Command(os.Args[0], args...)}
	p.Env = append(os.Environ(), asAgent+"=1")
	p.Stderr = &p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// awaitStart waits until everything has been compared once.
func (p *agentProcess) awaitStart(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(p.log.String(), "started"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it has not started: %s", &p.log)
		}
	}
}

// end signals the process and returns how it has ended.
func (p *agentProcess) end(t testing.TB, s os.Signal) error {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	return p.Wait()
}

func TestSIGTERMEndsIt(t *testing.T) {
	t.Parallel()
	p := start(t, nstest.New(t))
	p.awaitStart(t)
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("%v: %s", err, &p.log)
	}
	if !strings.Contains(p.log.String(), "msg=ended") {
		t.Errorf("log %s", &p.log)
	}
}

// In JSON a duration and an address are what they are in text.
func TestLogInJSON(t *testing.T) {
	t.Parallel()
	p := start(t, nstest.New(t), "-log-format", "json", "-interval", "2s")
	p.awaitStart(t)
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("%v: %s", err, &p.log)
	}
	said := map[string]any{}
	for line := range strings.Lines(p.log.String()) {
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	took, _ := said["comparedIn"].(string)
	if _, err := time.ParseDuration(took); err != nil || said["msg"] != "ended" || said["interval"] != "2s" || said["address"] != "127.0.0.1:9470" {
		t.Errorf("log %s", &p.log)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-version"}, ended, "tapbridge-agent unknown\n"},
		{[]string{"-h"}, ended, "-observe-only"},
		{[]string{"-interval", "30"}, misused, `invalid value "30" for flag -interval: want a number with its unit, such as 30s or 5m; try: tapbridge-agent -h`},
		{[]string{"-sweep-after", "5m", "-interval", "10ms"}, misused, "-sweep-after needs -runtime-endpoint"},
		{[]string{"-interval", "10ms"}, misused, "interval 10ms: want at least 1s"},
		{[]string{"-log-format", "xml"}, misused, `log-format "xml": want text or json`},
		{[]string{"br0"}, misused, `arguments ["br0"]: want flags only`},
		{[]string{"-repair"}, misused, "flag provided but not defined: -repair"},
	} {
		var out bytes.Buffer
		if code := run(context.Background(), c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q: exit code %d, want %d: %s", c.args, code, c.code, out.String())
		}
		if said := out.String(); c.code == misused && (strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "tapbridge-agent: ")) {
			t.Errorf("%q: want one line that names the program: %s", c.args, said)
		}
	}
}

// An agent whose lock file somebody has removed ends, and says so: no ADD hears of it any
// more.
func TestRemovedLockFileEndsIt(t *testing.T) {
	t.Parallel()
	p := &agentProcess{Cmd: nstest.New(t).Command("unshare", "--mount", "sh", "-c", `mount -t tmpfs tmpfs /run && exec "$0" -interval 1s -metrics ""`, os.Args[0])}
	p.Env = append(os.Environ(), asAgent+"=1")
	p.Stderr = &p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill() })
	p.awaitStart(t)
	if err := os.Remove(fmt.Sprintf("/proc/%d/root/run/tapbridge.lock", p.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait()
	if code, said := p.ProcessState.ExitCode(), p.log.String(); code != failed || !strings.Contains(said, "/run/tapbridge.lock has been moved or removed") {
		t.Errorf("code %d, want %d: %s", code, failed, said)
	}
}
