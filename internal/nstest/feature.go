package nstest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// NeedsVLANs skips the test on a kernel without VLAN filtering in bridges. Such
// a test runs in Debian's kernel, see test/kernel, so this is no way around it.
func NeedsVLANs(t testing.TB) {
	t.Helper()
	if !HasVLANs(t) {
		t.Skip("this kernel has no VLAN filtering: tested in Debian's kernel by test/kernel")
	}
}

// HasVLANs reports whether the kernel can make a bridge VLAN-aware, for a test
// that expects one thing or the other.
func HasVLANs(t testing.TB) bool {
	t.Helper()
	ns := New(t)
	_, err := ns.Command("ip", "link", "add", "vlans0", "type", "bridge", "vlan_filtering", "1").CombinedOutput()
	return err == nil && strings.Contains(ns.Run(t, "ip", "-d", "link", "show", "vlans0"), "vlan_filtering 1")
}

// NIC moves a network card into the namespace for the time of the test, and
// returns its name. It takes the one that TAPBRIDGE_TEST_NIC names and never looks
// for one: any other may be what the machine is reached by. test/kernel gives its
// guest a card for this.
func NIC(t testing.TB, ns *NS) string {
	t.Helper()
	name := os.Getenv("TAPBRIDGE_TEST_NIC")
	if name == "" {
		t.Skip("TAPBRIDGE_TEST_NIC names no network card: tested in Debian's kernel by test/kernel")
	}
	if out, err := exec.Command("ip", "link", "set", name, "netns", ns.Path).CombinedOutput(); err != nil {
		t.Fatalf("move network card %q: %v: %s", name, err, out)
	}
	t.Cleanup(func() { ns.Run(t, "ip", "link", "set", name, "netns", "1") }) // init's
	raise(t, ns, name)
	return name
}
