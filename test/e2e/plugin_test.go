package e2e

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

//go:embed recorder.sh
var recorder []byte

// installPlugins fills the runtime's directory of plugins. A recorder stands in front of tapbridge.
func (n *node) installPlugins() {
	n.t.Helper()
	must(n.t, os.MkdirAll(n.path("plugins", "tapbridge.calls"), 0o755))
	plugin, err := filepath.Abs(tool.Plugin)
	must(n.t, err)
	must(n.t, os.Symlink(plugin, n.path("plugins", "tapbridge.real")))
	must(n.t, os.WriteFile(n.path("plugins", "tapbridge"), recorder, 0o755))
	for _, name := range []string{"loopback", "ptp", "host-local", "static", "multus"} {
		must(n.t, os.Symlink(filepath.Join(tool.Bin, name), n.path("plugins", name)))
	}
}

// call is a call of tapbridge that has ended.
type call struct {
	verb          string
	env           []string
	stdin, stdout []byte
	code          int
}

// calls are those that have been recorded since the first n.
func (n *node) calls(since int) []call {
	n.t.Helper()
	dirs, err := filepath.Glob(n.path("plugins", "tapbridge.calls", "[0-9]*")) // in the order of time, as their names are
	must(n.t, err)
	var calls []call
	for _, dir := range dirs[since:] {
		calls = append(calls, readCall(n.t, dir))
	}
	return calls
}

func readCall(t *testing.T, dir string) call {
	t.Helper()
	file := func(name string) []byte {
		content, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		return content
	}
	c := call{env: strings.Split(string(file("env")), "\n"), stdin: file("stdin"), stdout: file("stdout")}
	c.verb = c.variable("CNI_COMMAND")
	var err error
	c.code, err = strconv.Atoi(strings.TrimSpace(string(file("code"))))
	must(t, err)
	return c
}

func (c call) variable(name string) string {
	for _, v := range c.env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// given reads the configuration of the call.
func (c call) given(t *testing.T) (config map[string]json.RawMessage) {
	t.Helper()
	must(t, json.Unmarshal(c.stdin, &config))
	return config
}

// String is a line for the log.
func (c call) String() string {
	line := c.verb + " " + c.variable("CNI_IFNAME")
	if c.code != 0 {
		line += " failed: " + string(c.stdout)
	}
	if c.verb == "DEL" && c.variable("CNI_NETNS") == "" {
		line += " (without namespace)"
	}
	if bytes.Contains(c.stdin, []byte(`"prevResult"`)) {
		line += " (with prevResult)"
	}
	return line
}

// succeeded demands that all calls since the first ones did, and returns those of the verb, of which there must be one.
func (n *node) succeeded(since int, verb string) (found []call) {
	n.t.Helper()
	for _, c := range n.calls(since) {
		if c.verb != "STATUS" {
			n.t.Log(c)
		}
		if c.code != 0 {
			n.t.Errorf("%s\ngiven %s", c, c.stdin)
		}
		if c.verb == verb {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		n.t.Errorf("no call of %s", verb)
	}
	return found
}

// awaitCall waits for a call of the verb that succeeds, since the first ones.
func (n *node) awaitCall(since int, verb string) {
	n.t.Helper()
	eventually(n.t, verb, func() error {
		for _, c := range n.calls(since) {
			if c.verb == verb && c.code == 0 {
				return nil
			}
		}
		return errors.New("there was none that succeeded")
	})
}
