package attach

import (
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// With every port managed but the uplink, the bridge takes the uplink out of
// promiscuous mode and has it filter for the guests' addresses; one port that
// learns and floods brings it back (net/bridge/br_if.c, br_manage_promisc). The
// uplink is a macvlan: a veth cannot filter.
func TestVLANAwareBridgeSparesTheUplink(t *testing.T) {
	t.Parallel()
	nstest.NeedsVLANs(t)
	n := &node{T: t, host: nstest.New(t), pod: nstest.New(t)}
	nstest.Bridge(t, n.host, "br0", bridgeMAC)
	n.hostRun(
		"ip link set br0 type bridge vlan_filtering 1",
		"ip link add lower0 up type veth peer name lower1",
		"ip link add up0 link lower0 type macvlan mode bridge",
		"ip link set up0 master br0 up")
	promiscuous := func(want bool, when string) {
		t.Helper()
		if got := !strings.Contains(n.host.Run(t, "ip", "-d", "link", "show", "up0"), "promiscuity 0"); got != want {
			t.Errorf("%s: the uplink's promiscuous mode is %v, want %v", when, got, want)
		}
	}
	managed := vlanWish(port.Tap, "1PU")
	n.mustApply(managed)
	promiscuous(false, "with a managed guest")
	if filter := n.host.Run(t, "bridge", "fdb", "show", "dev", "up0"); !strings.Contains(filter, managed.Guest.String()+" self") {
		t.Errorf("the uplink does not filter for the guest: %s", filter)
	}
	unmanaged := second(port.Kernel, "52:54:00:00:00:77")
	unmanaged.MTU, unmanaged.VLANs = 1500, "1PU"
	n.mustApply(unmanaged)
	promiscuous(true, "with a guest that the kernel manages")
	if err := n.remove(unmanaged.ID); err != nil {
		t.Fatal(err)
	}
	promiscuous(false, "without it")
}
