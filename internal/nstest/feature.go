package nstest

import (
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
