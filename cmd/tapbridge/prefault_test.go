package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// What asks for memory at one go is of use only before others ask for it. The runtime
// tells in which order packages are initialised.
func TestPrefaultComesFirst(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first := strings.Index(string(out), "init github.com/tapbridge/tapbridge/internal/prefault ")
	for _, later := range []string{"os", "net", "encoding/json", "github.com/vishvananda/netlink"} {
		if at := strings.Index(string(out), "init "+later+" "); first < 0 || at < first {
			t.Errorf("package %s is initialised at %d, prefault at %d of\n%s", later, at, first, out)
		}
	}
}
