package conformance

import (
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// VLANs on a bridge that is not VLAN-aware would isolate nobody: refused, with
// the command that makes it so, or the kernel's option where it would fail. STATUS says
// it before a pod has to.
func TestVLANsNeedAVLANAwareBridge(t *testing.T) {
	code, words := 7, []string{"not VLAN-aware", "ip link set br0 type bridge vlan_filtering 1"}
	if !nstest.HasVLANs(t) {
		code, words = 50, []string{"VLAN filtering: not supported by this kernel", "CONFIG_BRIDGE_VLAN_FILTERING"}
	}
	eachMode(t, func(t *testing.T, n *node) {
		n.unchanged(func() {
			for _, c := range []conf{{"vlan": 7}, {"vlanTrunk": []conf{{"id": 7}}}} {
				n.call("ADD", n.conf(c, recording)).fails(code, words...)
				n.call("STATUS", n.conf(c)).fails(50, words...)
			}
		})
	})
}
