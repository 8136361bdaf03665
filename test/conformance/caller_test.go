package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// env are environment variables.
type env map[string]string

// unset as the value of a variable takes it away.
const unset = "\x00"

// caller is a runtime that is about to execute a plugin.
type caller struct {
	t       testing.TB
	in      *nstest.NS
	command []string // the plugin, and what stands in front of it
	env     env
	stdin   string
	stdout  *os.File // nil: into the answer
}

// prepare makes a call ready: container c1, interface net1 in the node's pod,
// unless changed.
func (n *node) prepare(verb string, stdin any, changes ...env) *caller {
	n.t.Helper()
	e := env{
		"PATH":            os.Getenv("PATH"),
		"CNI_COMMAND":     verb,
		"CNI_CONTAINERID": "c1",
		"CNI_NETNS":       n.pod.Path,
		"CNI_IFNAME":      "net1",
		"CNI_PATH":        n.ipam.dir + string(filepath.ListSeparator) + pluginDir,
	}
	for _, change := range changes {
		maps.Copy(e, change)
	}
	maps.DeleteFunc(e, func(_, value string) bool { return value == unset })
	n.used.Store(true)
	return &caller{t: n.t, in: n.host, command: []string{tapbridge}, env: e, stdin: text(n.t, stdin)}
}

// call executes the plugin.
func (n *node) call(verb string, stdin any, changes ...env) answer {
	n.t.Helper()
	return n.prepare(verb, stdin, changes...).run()
}

// text is a string as it is, anything else as JSON.
func text(t testing.TB, stdin any) string {
	t.Helper()
	if s, ok := stdin.(string); ok {
		return s
	}
	return asJSON(t, stdin)
}

func asJSON(t testing.TB, value any) string {
	t.Helper()
	b, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// behind puts a command in front of the plugin.
func (c *caller) behind(command ...string) *caller {
	c.command = append(command, c.command...)
	return c
}

// masked runs the plugin in a mount namespace of its own, after a shell
// script.
func (c *caller) masked(script string) *caller {
	return c.behind("unshare", "--mount", "--propagation", "private", "sh", "-ec", script+`; exec "$0" "$@"`)
}

// struck makes the kernel misbehave at the nth call of a kind: strace injects a
// fault there, and this returns how often it did so. strace counts each thread's
// calls for itself: on one processor Go moves the plugin's work between threads
// less, so that more of the calls are reached.
func (c *caller) struck(tracer, call, fault string, nth int) (a answer, hits int) {
	c.t.Helper()
	c.env["GOMAXPROCS"] = "1"
	log := filepath.Join(c.t.TempDir(), "log")
	command := []string{tracer, "-f", "-qq", "-o", log, "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:%s:when=%d", call, fault, nth)}
	if strings.HasPrefix(fault, "error=") {
		command = append(command, "--seccomp-bpf") // four times as fast, but strace 6.1 loses signals so
	}
	a = c.behind(command...).run()
	text, err := os.ReadFile(log)
	if err != nil {
		c.t.Fatal(err)
	}
	return a, strings.Count(string(text), "(INJECTED)")
}

func (c *caller) run() answer {
	c.t.Helper()
	cmd := c.in.Command(c.command[0], c.command[1:]...)
	for key, value := range c.env {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.stdin), &stdout, &stderr
	if c.stdout != nil {
		cmd.Stdout = c.stdout
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatalf("%q: %v", c.command, err)
	}
	return answer{c.t, c.env["CNI_COMMAND"], cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// answer is how a plugin has ended.
type answer struct {
	t      testing.TB
	verb   string
	code   int // of the exit; -1 after a signal
	stdout string
	stderr string
}

func (a answer) fatalf(format string, args ...any) {
	a.t.Helper()
	a.t.Fatalf(a.verb+": "+format+"\nexit code: %d\nstdout: %s\nstderr: %s", append(args, a.code, a.stdout, a.stderr)...)
}

// ok demands success.
func (a answer) ok() answer {
	a.t.Helper()
	if a.code != 0 {
		a.fatalf("failed")
	}
	return a
}

// silent demands success without a word on stdout.
func (a answer) silent() {
	a.t.Helper()
	if a.ok(); a.stdout != "" {
		a.fatalf("stdout is not empty")
	}
}

// decode demands that stdout is exactly one JSON document.
func (a answer) decode(into any) {
	a.t.Helper()
	d := json.NewDecoder(strings.NewReader(a.stdout))
	if err := d.Decode(into); err != nil {
		a.fatalf("stdout: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		a.fatalf("stdout has more than one document")
	}
}

// prev is the answer as the prevResult of a configuration.
func (a answer) prev() conf {
	return conf{"prevResult": json.RawMessage(a.stdout)}
}

// failed is an error result.
type failed struct {
	CNIVersion string
	Code       int
	Msg        string
	Details    string
}

// anyCode matches every error code but 0, which means success.
const anyCode = 0

// fails demands the error result with that code, and each word in its text.
func (a answer) fails(code int, words ...string) failed {
	a.t.Helper()
	var f failed
	if a.code <= 0 {
		a.fatalf("exit code %d, want a failure", a.code)
	}
	a.decode(&f)
	if f.CNIVersion == "" || f.Code == 0 || f.Msg == "" {
		a.fatalf("the error is not complete: %+v", f)
	}
	if code != anyCode && f.Code != code {
		a.fatalf("error code %d, want %d", f.Code, code)
	}
	for _, word := range words {
		if !strings.Contains(f.Msg+"\n"+f.Details, word) {
			a.fatalf("%q is not in the error's text", word)
		}
	}
	return f
}
