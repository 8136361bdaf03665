package conformance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// These hold the kernel to design.md after an ADD, where the CNI specification
// has no word.

// seen is a bridge port, as far as it decides about frames.
type seen struct {
	Learning, Flood, Isolated, Hairpin, Locked any
	Entries                                    []string // for the guest's MAC, but learned ones
}

// The port's flags and the guest's entry follow from the configuration (section
// 3).
func TestTables(t *testing.T) {
	on := func(c conf) conf { return libvirt.with(conf{"mac": guestMAC}, c) }
	eachMode(t, func(t *testing.T, n *node) {
		nstest.WaitForwarding(t, n.host, "uplink")
		for name, c := range map[string]struct {
			conf conf
			want seen
		}{
			"kernel":  {conf{"mac": guestMAC}, seen{true, true, false, false, false, nil}},
			"sticky":  {on(nil), seen{false, false, false, false, false, []string{"PORT static sticky"}}},
			"static":  {on(conf{"fdb": "static"}), seen{false, false, false, false, false, []string{"PORT static"}}},
			"roaming": {on(conf{"fdb": "roaming"}), seen{true, false, false, false, false, []string{"PORT static"}}},
			"follow":  {on(conf{"fdb": "follow"}), seen{true, false, false, false, false, nil}},
			"locked":  {on(conf{"macspoofchk": true}), seen{false, false, false, false, true, []string{"PORT static sticky"}}},
			"options": {conf{"mac": guestMAC, "portIsolation": true, "hairpinMode": true}, seen{true, true, true, true, false, nil}},
		} {
			if name == "follow" && n.mode() == "veth" {
				continue // it needs a tap
			}
			// Somebody has spoken with the guest's MAC on the uplink before.
			n.sh(n.host, nil, "bridge fdb replace "+guestMAC+" dev uplink master dynamic")
			r := n.call("ADD", n.conf(c.conf)).result()
			p := n.links(n.host)[r.port().Name].LinkInfo.Port
			got := seen{p["learning"], p["flood"], p["isolated"], p["hairpin"], p["locked"], nil}
			for _, e := range n.entries(guestMAC) {
				if strings.Contains(e, " static") || strings.Contains(e, " permanent") {
					got.Entries = append(got.Entries, strings.ReplaceAll(e, r.port().Name, "PORT"))
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s: port (-want +got):\n%s", name, diff)
			}
			n.call("DEL", n.conf(c.conf)).ok()
		}
	})
}

// The devices that stand for the guest have the derived MAC, whatever the
// guest's is, and the bridge keeps its own (section 2).
func TestDerivedMACs(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for guest, derived := range map[string]string{
			guestMAC: guestPort, "fe:54:00:00:00:01": "fa:54:00:00:00:01", "fa:54:00:00:00:01": guestPort, "00:00:00:00:00:01": "fe:00:00:00:00:01",
		} {
			r := n.call("ADD", n.conf(conf{"mac": guest})).result()
			want := map[string]string{"lo": "00:00:00:00:00:00"}
			if n.mode() != "host-tap" {
				want["net1"] = guest
			}
			if n.mode() == "tap" {
				want["tap1"] = derived
			}
			got := map[string]string{}
			for name, l := range n.links(n.pod) {
				got[name] = l.Address
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("guest %s: MACs in the pod (-want +got):\n%s", guest, diff)
			}
			host := n.links(n.host)
			if port := host[r.port().Name].Address; port != derived || host["br0"].Address != bridgeMAC {
				t.Errorf("guest %s: port %s, want %s; bridge %s, want %s", guest, port, derived, host["br0"].Address, bridgeMAC)
			}
			n.call("DEL", n.conf()).ok()
		}
	})
}

// The tap's name follows from CNI_IFNAME (section 2).
func TestTapNames(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for ifname, tap := range map[string]string{
		"pod1a2b3c4d5e6": "tap1a2b3c4d5e6", "net1": "tap1", "eth0": "tap0", "eth": "tapeth", "e": "tape", "fifteen-letters": "tapteen-letters",
	} {
		n.call("ADD", n.conf(), env{"CNI_IFNAME": ifname}).ok()
		if _, there := n.links(n.pod)[tap]; !there {
			t.Errorf("%s: no tap %q: %q", ifname, tap, n.names(n.pod))
		}
		n.call("DEL", n.conf(), env{"CNI_IFNAME": ifname}).ok()
	}
}

// An existing bridge keeps its MAC and MTU, whatever joins it (section 4).
func TestBridgeStaysAsItIs(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.sh(n.host, nil, "ip link set uplink nomaster\n ip link del br0\n ip link add br0 type bridge\n ip link set uplink master br0") // nothing of it is pinned
		n.sh(n.host, nil, "ip link set uplink mtu 1400\n ip link set br0 up")
		addresses := func() string {
			br := n.links(n.host)["br0"]
			return fmt.Sprintf("MAC %s, MTU %d", br.Address, br.MTU)
		}
		before := addresses()
		for i, guest := range []string{"00:00:00:00:00:01", "fe:ff:ff:ff:ff:ff", "02:00:00:00:00:00"} {
			n.call("ADD", n.conf(conf{"mac": guest, "mtu": 1000}), of("c1", fmt.Sprintf("net%d", i))).ok()
		}
		if diff := cmp.Diff(before, addresses()); diff != "" {
			t.Errorf("bridge (-before +after):\n%s", diff)
		}
	})
}
