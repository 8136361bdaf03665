package attach_test

import (
	"fmt"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// TestSpoofLocked: a locked port lets in its guest's address and no other, and
// whose address was tried notices nothing.
func TestSpoofLocked(t *testing.T) {
	t.Parallel()
	for _, table := range []port.Table{port.Sticky, port.Static} {
		for _, mode := range port.Modes {
			t.Run(fmt.Sprintf("%s %s", mode, table), func(t *testing.T) {
				t.Parallel()
				n := lanNew(t, 1500)
				spoofer := n.guest(t, mode, table, guestLocked)
				victim := n.guest(t, mode, table, guestLocked)
				nobody := lanStation{mac: lanMAC("02:00:00:00:ee:ee")}
				lanExpect(t,
					spoofer.as(victim.lanStation).to("as the victim", n.outside, 0),
					lanBroadcast("broadcast as the victim", spoofer.as(victim.lanStation), n.outside, 0),
					spoofer.as(n.outside).to("as a station outside", victim.lanStation, 0),
					spoofer.as(nobody).to("as nobody", n.outside, 0),
					spoofer.to("as itself", n.outside, 10),
					spoofer.to("as itself to the victim", victim.lanStation, 10))
				lanExpect(t,
					n.outside.to("outside to the victim", victim.lanStation, 10),
					spoofer.to("spoofer to the victim", victim.lanStation, 10),
					victim.to("the victim to the outside", n.outside, 10),
					victim.to("the victim to the spoofer", spoofer.lanStation, 10))
			})
		}
	}
}

// TestSpoofUnlocked shows what spoofed frames do to a victim: then, and after it
// has spoken again. They pass, as no port is locked. What a neighbour sends to
// the victim and does not arrive there, the spoofer gets.
func TestSpoofUnlocked(t *testing.T) {
	t.Parallel()
	const uplink = port.Table("the uplink") // which learns
	for _, c := range []struct {
		victim, spoofer port.Table
		then, after     int
	}{
		{port.Sticky, port.Sticky, 10, 10},
		{port.Sticky, port.Kernel, 10, 10},
		{port.Sticky, port.Roaming, 10, 10},
		{port.Sticky, uplink, 10, 10},
		{port.Static, port.Static, 10, 10}, // a port that does not learn moves nothing
		{port.Static, port.Kernel, 0, 0},
		{port.Static, port.Roaming, 0, 0},
		{port.Static, uplink, 0, 0},
		{port.Roaming, port.Sticky, 10, 10},
		{port.Roaming, port.Kernel, 0, 10},
		{port.Roaming, uplink, 0, 10},
		{port.Kernel, port.Sticky, 10, 10},
		{port.Kernel, port.Kernel, 0, 10},
		{port.Kernel, uplink, 0, 10},
	} {
		t.Run(fmt.Sprintf("%s by %s", c.victim, c.spoofer), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			victim := n.guest(t, port.Tap, c.victim)
			neighbour := n.guest(t, port.Veth, port.Sticky)
			spoofer := n.outside
			if c.spoofer != uplink {
				spoofer = n.guest(t, port.HostTap, c.spoofer).lanStation
			}
			lanExpect(t, victim.to("victim to neighbour", neighbour.lanStation, 10))
			lanExpect(t, spoofer.as(victim.lanStation).to("as the victim to neighbour", neighbour.lanStation, 10))

			astray := neighbour.to("astray", victim.lanStation, 10-c.then)
			astray.at = []lanStation{spoofer}
			lanExpect(t, neighbour.to("neighbour to victim", victim.lanStation, c.then), astray)
			lanExpect(t, victim.to("victim to neighbour", neighbour.lanStation, 10))
			lanExpect(t, neighbour.to("neighbour to victim, which has spoken", victim.lanStation, c.after))
		})
	}
}

// TestClaimRefusedGuestHarmsNobody: libvirt accepts these, and cuts the first
// guest off.
func TestClaimRefusedGuestHarmsNobody(t *testing.T) {
	t.Parallel()
	const first = "52:54:00:12:34:56"
	for name, second := range map[string]string{
		"the same address":            first,
		"the first one's tap address": "fe:54:00:12:34:56",
		"the bridge's address":        lanBridgeMAC,
	} {
		for _, mode := range port.Modes {
			t.Run(fmt.Sprintf("%s %s", mode, name), func(t *testing.T) {
				t.Parallel()
				n := lanNew(t, 1500)
				g := n.guest(t, mode, port.Sticky, guestMAC(first))
				n.guestRefused(t, attach.ErrTaken, n.plan(mode, port.Sticky, guestMAC(second)))
				lanExpect(t,
					n.outside.to("outside to the first guest", g.lanStation, 10),
					g.to("the first guest to the outside", n.outside, 10))
			})
		}
	}
}

// TestClaimSharedTapAddress: two guests that differ in their first byte only
// have ports of one address, which the bridge stands.
func TestClaimSharedTapAddress(t *testing.T) {
	t.Parallel()
	for _, table := range lanTables {
		t.Run(string(table), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			a := n.guest(t, port.HostTap, table, guestMAC("02:00:00:12:34:56"))
			b := n.guest(t, port.Tap, table, guestMAC("06:00:00:12:34:56"))
			lanExpect(t,
				n.outside.to("outside to a", a.lanStation, 10), n.outside.to("outside to b", b.lanStation, 10),
				a.to("a to b", b.lanStation, 10), b.to("b to a", a.lanStation, 10))
			a.del(t)
			lanExpect(t, n.outside.to("outside to b without a", b.lanStation, 10), b.to("b to the outside without a", n.outside, 10))
		})
	}
}

// TestClaimReplacesALearnedEntry: the bridge has seen the guest's address on its
// uplink, as it has on the target of a live migration. libvirt's exclusive
// create fails there without a word, and the guest gets nothing.
func TestClaimReplacesALearnedEntry(t *testing.T) {
	t.Parallel()
	for _, table := range []port.Table{port.Sticky, port.Static, port.Roaming} {
		t.Run(string(table), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			neighbour := n.guest(t, port.Tap, table)
			late := n.plan(port.Tap, table)
			elsewhere := lanStation{n.outside.wire, late.Guest.HardwareAddr()}
			lanExpect(t, elsewhere.to("the guest speaks elsewhere", neighbour.lanStation, 10))
			g := n.add(t, late)
			g.start(t)
			lanExpect(t, neighbour.to("neighbour to the guest", g.lanStation, 10), g.to("the guest to its neighbour", neighbour.lanStation, 10))
		})
	}
}
