package attach_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// lanExisting are bridges as people make them, as lines of commands.
var lanExisting = map[string]string{
	"MAC and MTU set": `
		ip link add br0 address 02:00:00:00:ff:01 type bridge
		ip link set br0 mtu 1500 up
		ip link set uplink master br0`,
	"nothing set": `
		ip link add br0 type bridge
		ip link set uplink master br0
		ip link set br0 up`,
	"nothing set, large uplink": `
		ip link add br0 type bridge
		ip link set uplink mtu 9000 master br0
		ip link set br0 up`,
	"with an address and as a router": `
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		ip link add br0 type bridge
		ip link set uplink master br0
		ip link set br0 up
		ip addr add 192.0.2.1/24 dev br0
		ip addr add 2001:db8::1/64 dev br0
		sysctl -qw net.ipv4.conf.br0.rp_filter=2 net.ipv6.conf.br0.accept_ra=2`,
	"with settings of its own": `
		ip link add br0 type bridge forward_delay 200 ageing_time 1000 mcast_snooping 0 group_fwd_mask 8 priority 4096
		ip link set br0 alias mine group 7
		ip link set uplink master br0
		ip link set br0 up
		bridge fdb add 02:00:00:00:00:77 dev uplink master static`,
	"down": `
		ip link add br0 type bridge
		ip link set uplink master br0`,
	"without ports, nothing set": `
		ip link add br0 mtu 9000 type bridge
		sysctl -qw net.ipv6.conf.br0.disable_ipv6=1
		ip link set br0 up`,
	"without ports, MAC and MTU set": `
		ip link add br0 address 02:00:00:00:ff:01 type bridge
		sysctl -qw net.ipv6.conf.br0.disable_ipv6=1
		ip link set br0 mtu 9000 up`,
}

// TestExistingBridgeIsLeftAlone: while guests of every mode are attached with an
// MTU below the bridge's, nothing but their ports is new, and nothing at all
// after they have gone.
func TestExistingBridgeIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, commands := range lanExisting {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := lanWith(t, commands)
			before := lanWithout(nstest.World(n.NS), nil)
			var guests []*guest
			for _, mode := range port.Modes {
				guests = append(guests, n.add(t, n.plan(mode, port.Sticky, guestMTU(1280))))
			}
			if diff := nstest.Diff(before, lanWithout(nstest.World(n.NS), guests)); diff != "" {
				t.Errorf("beside the guests' ports (-before +while attached):\n%s", diff)
			}
			for _, g := range guests {
				g.del(t)
			}
			if diff := nstest.Diff(before, lanWithout(nstest.World(n.NS), nil)); diff != "" {
				t.Errorf("host (-before +after):\n%s", diff)
			}
		})
	}
}

// lanWith makes a node with an uplink and what the commands add. The uplink's
// address is lower than any port's of ours, as a network card's is; of those
// that the kernel draws for a veth, one in 64 begins with 0xFE.
func lanWith(t *testing.T, commands string) *lanNode {
	t.Helper()
	n, far := lanBare(t), nstest.New(t)
	nstest.Veth(t, n.NS, "uplink", far, "eth0")
	n.Run(t, "ip", "link", "set", "uplink", "address", "02:00:00:00:ff:02")
	for line := range strings.Lines(strings.TrimSpace(commands)) {
		words := strings.Fields(line)
		n.Run(t, words[0], words[1:]...)
	}
	return n
}

// lanWithout is the world but for what is about the guests' ports, and for three
// things that are news of a bridge's ports and not a setting: its carrier, the
// size of segments it would hand to a network card (net/bridge/br_if.c,
// br_set_gso_limits), and the identity for STP, which is all zero until a bridge
// without an address set has had its first port.
func lanWithout(world string, guests []*guest) string {
	omit := []string{
		"0 link " + lanBridge + " flags LOWER_UP",
		"0 link " + lanBridge + " flags NO-CARRIER",
		"0 link " + lanBridge + " tso_max_s",
		"0 link " + lanBridge + " linkinfo info_data bridge_id ",
		"0 link " + lanBridge + " linkinfo info_data root_id ",
	}
	for _, g := range guests {
		omit = append(omit, g.PortName())
	}
	var rest strings.Builder
	for line := range strings.Lines(world) {
		if !slices.ContainsFunc(omit, func(what string) bool { return strings.Contains(line, what) }) {
			rest.WriteString(line)
		}
	}
	return rest.String()
}
