package attach_test

import (
	"fmt"
	"testing"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// crowd guards ports that need not be there.
func (n *lanNode) crowd(t testing.TB, size int) {
	t.Helper()
	n.guards(t, func(c *rtnl.Conn) {
		for i := range size {
			name := fmt.Sprintf("tb%012x", i)
			list := fmt.Sprintf("10.1.%d.%d fd00::1:%x fe80::%x", i>>8, i&255, i, i)
			if err := guard.Close(c, name, mac.Addr{2, 9, 9, 9, byte(i >> 8), byte(i)}, list); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func (n *lanNode) guards(t testing.TB, do func(c *rtnl.Conn)) {
	t.Helper()
	c, err := rtnl.OpenAt(n.Path) // a benchmark within do has a thread of its own
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	do(c)
}

// BenchmarkGuardedFrames is the way of a frame from a tap that is the port to the
// uplink.
func BenchmarkGuardedFrames(b *testing.B) {
	for _, c := range []struct {
		name    string
		options []guestOption
		crowd   int
	}{{"unguarded", nil, 0}, {"unguarded, beside 1", nil, 1}, {"guarded", []guestOption{guestGuarded}, 0}, {"guarded, beside 999", []guestOption{guestGuarded}, 999}} {
		b.Run(c.name, func(b *testing.B) {
			n := lanNew(b, 1500)
			n.withoutIPTables(b)
			g := n.guest(b, port.HostTap, port.Sticky, c.options...)
			if g.Guarded {
				g.admit(b, hostile4, hostile6)
			}
			n.crowd(b, c.crowd)
			n.outside.wire.Close()
			frame := append(ethernet(n.outside.mac.String(), g.mac, etherIPv4, ipv4(hostile4, outside4, 17, 0, udp(1, 2))), "shot-000000001"...)
			for b.Loop() {
				g.wire.Send(frame)
			}
		})
	}
}

// BenchmarkGuard is what ADD, CHECK and DEL pay for a guarded port beside others.
func BenchmarkGuard(b *testing.B) {
	for _, others := range []int{1, 1000} {
		n := lanBare(b)
		n.crowd(b, others)
		must := func(b *testing.B, err error) {
			if err != nil {
				b.Fatal(err)
			}
		}
		const name = "tbffffffffffff"
		add := func(b *testing.B, c *rtnl.Conn) {
			must(b, guard.Close(c, name, mac.Addr{2, 1}, ""))
			must(b, guard.Admit(c, name, mac.Addr{2, 1}, "10.0.0.2 fd00::2 fe80::1"))
		}
		n.guards(b, func(c *rtnl.Conn) {
			b.Run(fmt.Sprintf("ADD and DEL beside %d", others), func(b *testing.B) {
				for b.Loop() {
					add(b, c)
					must(b, guard.Remove(c, name))
				}
			})
			b.Run(fmt.Sprintf("ADD beside %d", others), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					must(b, guard.Remove(c, name))
					b.StartTimer()
					add(b, c)
				}
			})
			b.Run(fmt.Sprintf("CHECK beside %d", others), func(b *testing.B) {
				for b.Loop() {
					_, err := guard.Observe(c)
					must(b, err)
				}
			})
		})
	}
}
