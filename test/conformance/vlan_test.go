package conformance

import "testing"

// VLANs on a bridge that is not VLAN-aware would isolate nobody: refused, with
// the command that makes it so, and STATUS says it before a pod has to.
func TestVLANsNeedAVLANAwareBridge(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.unchanged(func() {
			for _, c := range []conf{{"vlan": 7}, {"vlanTrunk": []conf{{"id": 7}}}} {
				n.call("ADD", n.conf(c, recording)).fails(7, "not VLAN-aware", "ip link set br0 type bridge vlan_filtering 1")
				n.call("STATUS", n.conf(c)).fails(50, "not VLAN-aware")
			}
		})
	})
}
