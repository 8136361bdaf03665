package attach_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
)

// guestPairs makes two guests of each mode on one bridge.
func guestPairs(t *testing.T, n *lanNode, table port.Table) (a, b map[port.Mode]*guest) {
	t.Helper()
	a, b = map[port.Mode]*guest{}, map[port.Mode]*guest{}
	for _, mode := range port.Modes {
		a[mode] = n.guest(t, mode, table)
		b[mode] = n.guest(t, mode, table)
	}
	return a, b
}

// lanEachTable runs the test for every table, each on a node of its own.
func lanEachTable(t *testing.T, test func(t *testing.T, table port.Table, n *lanNode, a, b map[port.Mode]*guest)) {
	t.Parallel()
	for _, table := range lanTables {
		t.Run(string(table), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			a, b := guestPairs(t, n, table)
			test(t, table, n, a, b)
		})
	}
}

// TestFramesToSilentGuests: nobody can have learned their address yet.
func TestFramesToSilentGuests(t *testing.T) {
	lanEachTable(t, func(t *testing.T, _ port.Table, n *lanNode, a, b map[port.Mode]*guest) {
		for _, mode := range port.Modes {
			lanExpect(t,
				n.outside.to(fmt.Sprintf("outside to a silent %s", mode), a[mode].lanStation, 10),
				n.outside.to(fmt.Sprintf("outside to another silent %s", mode), b[mode].lanStation, 10))
		}
	})
}

func TestFramesBetweenGuests(t *testing.T) {
	lanEachTable(t, func(t *testing.T, _ port.Table, n *lanNode, a, b map[port.Mode]*guest) {
		for _, from := range port.Modes {
			for _, to := range port.Modes {
				lanExpect(t,
					a[from].to(fmt.Sprintf("%s to %s", from, to), b[to].lanStation, 10),
					b[to].to(fmt.Sprintf("%s back to %s", to, from), a[from].lanStation, 10))
			}
			lanExpect(t,
				a[from].to(fmt.Sprintf("%s to outside", from), n.outside, 10),
				n.outside.to(fmt.Sprintf("outside to %s", from), a[from].lanStation, 10))
		}
	})
}

// TestFramesForEverybody: a frame for all, or for nobody known, as the uplink
// and as a guest sends it.
func TestFramesForEverybody(t *testing.T) {
	lanEachTable(t, func(t *testing.T, table port.Table, n *lanNode, a, b map[port.Mode]*guest) {
		flooded := 0
		if table == port.Kernel {
			flooded = 10
		}
		for _, c := range []struct {
			name, to string
			want     int // at each guest
		}{
			{"broadcast", "ff:ff:ff:ff:ff:ff", 10},
			{"IPv4 multicast", "01:00:5e:01:02:03", 10},
			{"IPv6 multicast", "33:33:00:00:00:01", 10},
			{"unknown unicast", "02:00:00:00:ee:ee", flooded},
		} {
			var flows []lanFlow
			from := func(who string, sender, at lanStation, want int) {
				flows = append(flows, lanFlow{what: c.name + " from " + who, from: sender, to: lanMAC(c.to), at: []lanStation{at}, want: want})
			}
			for _, mode := range port.Modes {
				from("outside to "+string(mode), n.outside, a[mode].lanStation, c.want)
				from(fmt.Sprintf("%s to outside", mode), a[mode].lanStation, n.outside, 10) // the uplink floods as ever
				for _, other := range port.Modes {
					from(fmt.Sprintf("%s to %s", mode, other), a[mode].lanStation, b[other].lanStation, c.want)
				}
			}
			lanExpect(t, flows...)
		}
	})
}

// TestFramesFullSize: the largest frame is the MTU and an Ethernet header of 14
// bytes.
func TestFramesFullSize(t *testing.T) {
	t.Parallel()
	for _, mtu := range []int{1280, 1500, 9000} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, mtu)
			a, b := guestPairs(t, n, port.Sticky)
			for _, from := range port.Modes {
				flows := []lanFlow{
					a[from].to(fmt.Sprintf("%s to outside", from), n.outside, 10),
					n.outside.to(fmt.Sprintf("outside to %s", from), a[from].lanStation, 10),
				}
				for _, to := range port.Modes {
					flows = append(flows, a[from].to(fmt.Sprintf("%s to %s", from, to), b[to].lanStation, 10))
				}
				lanExpect(t, lanSized(mtu+14, flows...)...)
			}
		})
	}
}

func lanSized(size int, flows ...lanFlow) []lanFlow {
	for i := range flows {
		flows[i].size = size
	}
	return flows
}

// TestFramesLargerThanTheGuestsMTU shows who drops what: a device takes what is
// as large as its MTU and a VLAN tag, 4 bytes more (net/core/dev.c,
// __is_skb_forwardable), and a tap takes anything from its guest.
//
// The bridge port keeps the bridge's MTU, so it is the pod interface that lets
// in nothing larger than the guest's; in mode host-tap, without one, a smaller
// MTU is reported only. What a guest sends is held to that of the port where it
// leaves the bridge; and to its own port's by the veth pair, unless eBPF takes it
// past that. In mode veth the guest is the pod's own stack, which keeps to its MTU
// by itself.
func TestFramesLargerThanTheGuestsMTU(t *testing.T) {
	t.Parallel()
	const guests, bridges, uplinks = 1400, 1500, 9000
	fromTap := uplinks
	if bestWay() == redirect.Mirred {
		fromTap = bridges
	}
	for mode, largest := range map[port.Mode]struct{ receives, sends int }{
		port.Tap:     {guests, fromTap},
		port.Veth:    {guests, 0},
		port.HostTap: {bridges, uplinks},
	} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, uplinks)
			n.Run(t, "ip", "link", "set", lanBridge, "mtu", fmt.Sprint(bridges))
			g := n.guest(t, mode, port.Sticky, guestMTU(guests))
			const header, tag = 14, 4
			flows := lanSized(header+guests, n.outside.to("of the guest's MTU", g.lanStation, 10))
			flows = append(flows, lanSized(header+largest.receives+tag, n.outside.to("the largest to the guest", g.lanStation, 10))...)
			flows = append(flows, lanSized(header+largest.receives+tag+1, n.outside.to("larger to the guest", g.lanStation, 0))...)
			if largest.sends > 0 {
				flows = append(flows, lanSized(header+largest.sends+tag, g.to("the largest from the guest", n.outside, 10))...)
				flows = append(flows, lanSized(header+largest.sends+tag+1, g.to("larger from the guest", n.outside, 0))...)
			}
			lanExpect(t, flows...)
		})
	}
}

func TestFramesIsolated(t *testing.T) {
	t.Parallel()
	for _, table := range []port.Table{port.Kernel, port.Sticky} {
		for _, mode := range port.Modes {
			t.Run(fmt.Sprintf("%s %s", mode, table), func(t *testing.T) {
				t.Parallel()
				n := lanNew(t, 1500)
				a := n.guest(t, mode, table, guestIsolated)
				b := n.guest(t, mode, table, guestIsolated)
				open := n.guest(t, mode, table)
				lanExpect(t,
					a.to("a to the outside", n.outside, 10), n.outside.to("the outside to a", a.lanStation, 10),
					b.to("b to the outside", n.outside, 10), n.outside.to("the outside to b", b.lanStation, 10),
					a.to("a to an open peer", open.lanStation, 10), open.to("the open peer to a", a.lanStation, 10),
					b.to("b to an open peer", open.lanStation, 10), open.to("the open peer to b", b.lanStation, 10))
				lanExpect(t,
					a.to("a to b", b.lanStation, 0), lanBroadcast("a's broadcast at b", a.lanStation, b.lanStation, 0),
					b.to("b to a", a.lanStation, 0), lanBroadcast("b's broadcast at a", b.lanStation, a.lanStation, 0),
					lanBroadcast("a's broadcast at the open peer", a.lanStation, open.lanStation, 10),
					lanBroadcast("a's broadcast outside", a.lanStation, n.outside, 10))
			})
		}
	}
}

func lanBroadcast(what string, from, at lanStation, want int) lanFlow {
	return lanFlow{what: what, from: from, to: lanMAC("ff:ff:ff:ff:ff:ff"), at: []lanStation{at}, want: want}
}

// TestFramesToASecondAddress of a guest, from which it has spoken.
func TestFramesToASecondAddress(t *testing.T) {
	want := map[port.Table]int{port.Kernel: 10, port.Roaming: 10, port.Sticky: 0, port.Static: 0}
	lanEachTable(t, func(t *testing.T, table port.Table, n *lanNode, a, _ map[port.Mode]*guest) {
		var from, to []lanFlow
		for i, mode := range port.Modes {
			second := a[mode].as(lanStation{mac: net.HardwareAddr{2, 0, 0, 0, 0xee, byte(i)}})
			from = append(from, second.to(fmt.Sprintf("%s: from its second address", mode), n.outside, 10))
			to = append(to, n.outside.to(fmt.Sprintf("%s: to its second address", mode), second, want[table]))
		}
		lanExpect(t, from...)
		lanExpect(t, to...)
	})
}

// TestFramesHairpin: a frame comes back to where it came from when it would
// have gone there anyway, flooded or by an entry.
func TestFramesHairpin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                     string
		table                    port.Table
		options                  []guestOption
		broadcast, unknown, self int // how many of 10 come back
	}{
		{"off", port.Kernel, nil, 0, 0, 0},
		{"off, with an entry", port.Sticky, nil, 0, 0, 0},
		{"on", port.Kernel, []guestOption{guestHairpin}, 10, 10, 10},
		{"on, with an entry", port.Sticky, []guestOption{guestHairpin}, 10, 0, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			nobody := lanStation{mac: lanMAC("02:00:00:00:ee:ee")}
			var flows []lanFlow
			for _, mode := range port.Modes {
				me := n.guest(t, mode, c.table, c.options...).lanStation
				back := func(what string, to lanStation, want int) {
					flow := me.to(fmt.Sprintf("%s: %s comes back", mode, what), to, want)
					flow.at = []lanStation{me}
					flows = append(flows, flow)
				}
				back("unknown unicast", nobody, c.unknown)
				back("a frame to itself", me, c.self)
				flows = append(flows, lanBroadcast(fmt.Sprintf("%s: broadcast comes back", mode), me, me, c.broadcast))
			}
			lanExpect(t, flows...)
		})
	}
}

func TestFramesMultiQueue(t *testing.T) {
	t.Parallel()
	for _, mode := range []port.Mode{port.Tap, port.HostTap} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			g := n.guest(t, mode, port.Sticky, guestQueues)
			first, second := g.lanStation, lanStation{g.open(t), g.mac}
			inbound := n.outside.to("outside to the guest", g.lanStation, 10)
			inbound.at = []lanStation{first, second} // the kernel chooses the queue by the flow
			lanExpect(t, inbound,
				first.to("first queue to outside", n.outside, 10),
				second.to("second queue to outside", n.outside, 10))
		})
	}
}
