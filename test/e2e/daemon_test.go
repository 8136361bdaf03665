package e2e

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"text/template"
)

// daemon is a program that runs in a box until it is killed, or ends with the box.
type daemon struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// daemon starts one. Its log appears in the test's if that fails.
func (n *node) daemon(name string, cmd *exec.Cmd) *daemon {
	n.t.Helper()
	path := n.path(name + ".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(n.t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	must(n.t, cmd.Start())
	d := &daemon{n.t, name, cmd, make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ends is in its log
		close(d.done)
	}()
	n.t.Cleanup(func() { showLog(n.t, path) })
	return d
}

func showLog(t *testing.T, path string) {
	if text, err := os.ReadFile(path); err == nil && t.Failed() {
		const enough = 3000
		t.Logf("the end of %s:\n%s", path, text[max(0, len(text)-enough):])
	}
}

// ended says that the daemon has, as an error.
func (d *daemon) ended() error {
	select {
	case <-d.done:
		return fmt.Errorf("%s has ended", d.name)
	default:
		return nil
	}
}

// kill kills the daemon itself: what was started is nsenter, which has forked it into the box' pid namespace.
func (d *daemon) kill() {
	d.t.Helper()
	nsenter := d.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nsenter, nsenter))
	must(d.t, err)
	var child int
	if _, err := fmt.Sscan(string(children), &child); err != nil {
		d.t.Fatalf("find the process of %s: %v", d.name, err)
	}
	must(d.t, syscall.Kill(child, syscall.SIGKILL))
	<-d.done
}

//go:embed testdata
var testdata embed.FS

var templates = template.Must(template.ParseFS(testdata, "testdata/*"))

// configure writes a file of testdata with its blanks filled in, and returns its path.
func (n *node) configure(name string, blanks any) string {
	n.t.Helper()
	var text bytes.Buffer
	must(n.t, templates.ExecuteTemplate(&text, name, blanks))
	n.write(text.Bytes(), name)
	return n.path(name)
}
