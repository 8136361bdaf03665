// Package bandwidth measures by TCP what a limit on a port lets through. It lives in this module because of the guests.
package bandwidth

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
	"github.com/tapbridge/tapbridge/test/guest"
)

const (
	mtu  = 1500
	mbit = 1e6 / 8 // bytes
)

// speaker sends to a port that another serves, and serves one.
type speaker interface {
	Serve(port uint16) error
	Transfer(ctx context.Context, dst netip.AddrPort, bytes int64) (guest.Transfer, error)
}

// end is a speaker on a bridge, serving port 7000.
type end struct {
	speaker
	addr netip.Addr
}

// lan attaches guests to a bridge of a host's own namespace.
type lan struct {
	*testing.T
	host *nstest.NS
	n    byte // guests so far
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	l := &lan{T: t, host: nstest.New(t)}
	nstest.Bridge(t, l.host, "br0", "02:00:00:00:00:01")
	return l
}

func (l *lan) plugIn(mode port.Mode, toGuest, fromGuest shape.Limit) end {
	l.Helper()
	l.n++
	pod := nstest.New(l)
	a := port.Attachment{
		ID: port.ID{ContainerID: fmt.Sprint("pod", l.n), IfName: "net1"}, Network: "vms", Bridge: "br0",
		Mode: mode, Table: port.Sticky, Guest: mac.Addr{0x52, 0x54, 0, 0, 0, l.n}, MTU: mtu, PortMTU: mtu,
		Access: tap.Access{Owner: 107, Group: 107}, ToGuest: toGuest, FromGuest: fromGuest,
	}
	l.apply(a, pod)
	if mode == port.Veth {
		return l.serving(container(l, pod, l.n))
	}
	nic := guest.NIC{NetNS: pod.Path, Tap: a.TapName(), MAC: a.Guest.HardwareAddr(), Addr: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, l.n}), 24), MTU: mtu}
	if mode == port.HostTap {
		nic.NetNS, nic.Tap = l.host.Path, a.PortName()
	}
	g, err := guest.Netstack(l.Context(), nic)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { g.Close() })
	return l.serving(end{g, nic.Addr.Addr()})
}

func (l *lan) serving(e end) end {
	l.Helper()
	if err := e.Serve(7000); err != nil {
		l.Fatal(err)
	}
	return e
}

func (l *lan) apply(a port.Attachment, pod *nstest.NS) {
	l.Helper()
	l.host.Do(func() {
		s, err := attach.OpenPod(pod.Path)
		if err != nil {
			l.Fatal(err)
		}
		defer s.Close()
		br, err := bridge.Find(s.Host(), a.Bridge)
		if err == nil {
			err = s.Apply(a, br)
		}
		if err != nil {
			l.Fatal(err)
		}
	})
}

// patience bounds one transfer, which should take a second.
const patience = 10 * time.Second

// took is how long it takes to send bytes of payload; patience, if that is not enough.
func took(t *testing.T, from, to end, bytes int64) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sent, err := from.Transfer(ctx, netip.AddrPortFrom(to.addr, 7000), bytes)
	switch {
	case ctx.Err() != nil:
		return patience
	case err != nil:
		t.Fatal(err)
	}
	return sent.Took
}

// onWire is what a payload takes in frames: the limits count Ethernet headers, and a segment has 1448 bytes of payload.
func onWire(payload int64) float64 { return float64(payload) * 1514 / 1448 }

// attempts is how often a rate that is too low is measured: a busy machine slows a sender down, as do losses, and nothing speeds it
// up.
const attempts = 10

// path is from one guest to another.
type path struct{ from, to end }

// rate is what passes in a second, in bytes, behind a burst that passes at once.
func (p path) rate(t *testing.T, payload int64, burst uint64) float64 {
	t.Helper()
	return (onWire(payload) - float64(burst)) / took(t, p.from, p.to, payload).Seconds()
}

// holds wants the rate within a tenth of the limit's. A machine that at the same time does not carry twice that where nothing is
// limited is too busy to tell: then half of what it carries must pass.
func holds(t *testing.T, limited, free path, limit shape.Limit) {
	t.Helper()
	payload := int64(limit.Rate) // a second's
	want, able, got := float64(limit.Rate), float64(limit.Rate), 0.0
	for range attempts {
		time.Sleep(time.Duration(float64(limit.Burst) / want * float64(time.Second))) // the bucket fills up again
		got = max(got, limited.rate(t, payload, limit.Burst))
		t.Logf("%s: %.1f Mbit/s at most, limit %.0f", t.Name(), got/mbit, want/mbit)
		if got > 0.9*able {
			break
		}
		able = min(want, free.rate(t, payload, 0)/2)
	}
	if got < 0.9*able || got > 1.1*want {
		t.Errorf("%.1f Mbit/s, want %.0f within a tenth; half of what passes without a limit, or that: %.1f", got/mbit, want/mbit, able/mbit)
	}
}

func TestRates(t *testing.T) {
	for _, c := range []struct {
		mode port.Mode
		mbit uint64
	}{{port.Tap, 20}, {port.Tap, 100}, {port.Tap, 500}, {port.HostTap, 20}, {port.HostTap, 100}, {port.HostTap, 500}, {port.Veth, 20}, {port.Veth, 100}, {port.Veth, 500}} {
		limit := shape.Limit{Rate: c.mbit * mbit, Burst: c.mbit * mbit / 50} // 20 ms
		l := newLAN(t)
		peer := l.plugIn(port.Veth, shape.Limit{}, shape.Limit{})
		limited, free := l.plugIn(c.mode, limit, limit), l.plugIn(c.mode, shape.Limit{}, shape.Limit{})
		t.Run(fmt.Sprintf("%s %d to the guest", c.mode, c.mbit), func(t *testing.T) { holds(t, path{peer, limited}, path{peer, free}, limit) })
		t.Run(fmt.Sprintf("%s %d from the guest", c.mode, c.mbit), func(t *testing.T) { holds(t, path{limited, peer}, path{free, peer}, limit) })
	}
}

// What fits the bucket passes at once, in each direction: at the rate alone it would take 16 seconds.
func TestBurstPasses(t *testing.T) {
	const payload = 2 << 20
	limit := shape.Limit{Rate: 1 * mbit, Burst: 4 << 20}
	for _, mode := range port.Modes {
		l := newLAN(t)
		free := l.plugIn(port.Tap, shape.Limit{}, shape.Limit{})
		limited := l.plugIn(mode, limit, limit)
		for direction, d := range map[string]time.Duration{"to": took(t, free, limited, payload), "from": took(t, limited, free, payload)} {
			if d > 4*time.Second {
				t.Errorf("%s: a burst of %d bytes %s the guest took %v", mode, payload, direction, d)
			}
		}
	}
}
