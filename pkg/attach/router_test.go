package attach_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// A guest may be given the MAC of a router behind the uplink: the entry that the
// bridge has learned claims nothing. From then on it gets the router's frames, and
// no option keeps it from that, for they are its own MAC's.
func TestRoutersMAC(t *testing.T) {
	t.Parallel()
	for i, c := range theftColumns {
		mode := port.Modes[i%len(port.Modes)]
		t.Run(fmt.Sprintf("%s %d", mode, i), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			neighbour := n.guest(t, port.Veth, c.table)
			lanExpect(t, lanBroadcast("the router has spoken", n.outside, neighbour.lanStation, 10), neighbour.to("neighbour to router", n.outside, 10))
			g := column{c.table, append(c.options, guestMAC(n.outside.mac.String()))}.guest(t, n, mode)
			shoot(t, g.wire, n.outside.wire, []shot{{packet: ethernet(broadcast, g.mac, etherARP, arpPacket(1, g.mac, hostile4, g.mac, hostile4))}})
			stolen := neighbour.to("neighbour to router, at the guest", g.lanStation, 10)
			lanExpect(t, neighbour.to("neighbour to router", n.outside, 0), stolen)
		})
	}
}

// What keeps a router's MAC for it is an entry of the administrator's: nobody is given
// that MAC, and no frame moves it.
func TestRoutersEntry(t *testing.T) {
	t.Parallel()
	for i, c := range theftColumns {
		mode := port.Modes[i%len(port.Modes)]
		t.Run(fmt.Sprintf("%s %d", mode, i), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			neighbour := n.guest(t, port.Veth, c.table)
			g := c.guest(t, n, mode)
			n.Run(t, "bridge", "fdb", "replace", n.outside.mac.String(), "dev", "uplink", "master", "static", "sticky")
			n.guestRefused(t, attach.ErrTaken, n.plan(mode, c.table, guestMAC(n.outside.mac.String())))
			shoot(t, g.wire, n.outside.wire, []shot{
				{packet: ethernet(broadcast, n.outside.mac, etherARP, arpPacket(1, n.outside.mac, outside4, n.outside.mac, outside4))},
				{packet: ethernet("01:80:c2:00:00:0e", n.outside.mac, 0x88cc, []byte{2, 7, 4})},
			})
			lanExpect(t, neighbour.to("neighbour to router", n.outside, 10))
		})
	}
}

// How many of a guest's inventions stay in the bridge's table.
func TestTableFilled(t *testing.T) {
	t.Parallel()
	const inventions = 1000
	for i, c := range theftColumns {
		mode := port.Modes[i%len(port.Modes)]
		t.Run(fmt.Sprintf("%s %d", mode, i), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			g := c.guest(t, n, mode)
			for k := range inventions {
				g.wire.Send(ethernet(broadcast, []byte{2, 0xee, 0, 0, byte(k >> 8), byte(k)}, 0x88b5, make([]byte, 46)))
			}
			want := 0
			if c.table == port.Kernel && len(c.options) == 0 {
				want = inventions
			}
			shoot(t, g.wire, n.outside.wire, []shot{{packet: ethernet(broadcast, g.mac, 0x88b5)}}) // all of the others have gone before
			if got := strings.Count(n.Run(t, "bridge", "fdb", "show", "br", lanBridge), "02:ee:00:00:"); got != want {
				t.Errorf("the bridge knows %d of %d invented addresses, want %d", got, inventions, want)
			}
		})
	}
}

// A frame without a whole Ethernet header cannot be sent.
func TestRunt(t *testing.T) {
	t.Parallel()
	for _, mode := range port.Modes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			g := n.guest(t, mode, port.Kernel)
			whole := ethernet(broadcast, g.mac, 0x88b5)
			for length := 1; length < len(whole); length++ {
				if err := g.wire.TrySend(whole[:length]); !errors.Is(err, unix.EINVAL) {
					t.Errorf("%d bytes: %v", length, err)
				}
			}
		})
	}
}
