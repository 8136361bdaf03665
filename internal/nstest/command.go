package nstest

import (
	"bytes"
	"os/exec"
	"testing"
)

// Cmd is an exec.Cmd whose process starts in a namespace: a child inherits
// that of the thread which forks it.
type Cmd struct {
	*exec.Cmd
	ns *NS
}

// Command is exec.Command inside the namespace.
func (n *NS) Command(name string, args ...string) *Cmd {
	return &Cmd{Cmd: exec.Command(name, args...), ns: n}
}

// Start starts the process in the namespace.
func (c *Cmd) Start() (err error) {
	c.ns.t.Helper()
	c.ns.Do(func() { err = c.Cmd.Start() })
	return err
}

// Run starts the process in the namespace and waits for it.
func (c *Cmd) Run() error {
	c.ns.t.Helper()
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the process in the namespace and returns its standard output.
// What it says on standard error is in the exec.ExitError.
func (c *Cmd) Output() (out []byte, err error) {
	c.ns.t.Helper()
	c.ns.Do(func() { out, err = c.Cmd.Output() })
	return out, err
}

// CombinedOutput runs the process in the namespace and returns both outputs.
func (c *Cmd) CombinedOutput() (out []byte, err error) {
	c.ns.t.Helper()
	c.ns.Do(func() { out, err = c.Cmd.CombinedOutput() })
	return out, err
}

// Run returns the standard output of a command run in the namespace; the test
// ends here when the command fails.
func (n *NS) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := n.Command(name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v: %s", cmd.Args, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String()
}
