package guest

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
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// promotion is a bridge with a guest in mode tap, whose tap is moved under it, and one
// in mode host-tap.
type promotion struct {
	*testing.T
	host, pod *nstest.NS
	a, other  port.Attachment
}

func newPromotion(t *testing.T) *promotion {
	t.Helper()
	p := &promotion{T: t, host: nstest.New(t), pod: nstest.New(t)}
	nstest.Bridge(t, p.host, "br0", "02:00:00:00:00:01")
	p.a, p.other = p.attachment(port.Tap, 1), p.attachment(port.HostTap, 2)
	p.a.Promote = true
	p.site(func(s *attach.Site) error {
		for _, a := range []port.Attachment{p.a, p.other} {
			br, err := bridge.Find(s.Host(), a.Bridge)
			if err == nil {
				err = s.Apply(a, br)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return p
}

func (p *promotion) attachment(mode port.Mode, n byte) port.Attachment {
	return port.Attachment{
		ID:      port.ID{ContainerID: "c1", IfName: fmt.Sprint("net", n)},
		Network: "vms", Bridge: "br0", Mode: mode, Table: port.Sticky,
		Guest: mac.Addr{0x52, 0x54, 0, 0, 0, n}, MTU: 1500, PortMTU: 1500,
		Options: port.Options{Locked: true},
		Access:  tap.Access{Owner: 107, Group: 107},
	}
}

func (p *promotion) site(f func(*attach.Site) error) {
	p.Helper()
	p.host.Do(func() {
		s, err := attach.OpenPod(p.pod.Path)
		if err == nil {
			defer s.Close()
			err = f(s)
		}
		must(p.T, err)
	})
}

func (p *promotion) nic(a port.Attachment, last byte) NIC {
	ns, name := p.pod, a.TapName()
	if a.Mode == port.HostTap {
		ns, name = p.host, a.PortName()
	}
	addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), 24)
	return NIC{NetNS: ns.Path, Tap: name, MAC: a.Guest.HardwareAddr(), Addr: addr, MTU: 1500}
}

func (p *promotion) move(promote bool) {
	p.Helper()
	p.site(func(s *attach.Site) error {
		known, _, err := s.Named(p.a.PortName())
		if err != nil || !promote {
			return s.Demote(known)
		}
		_, err = s.Promote(known)
		return err
	})
}

// QEMU goes on while its tap is moved to the host and back, again and again, under
// traffic both ways; a TCP transfer survives it. The next QEMU finds the tap by its name.
func TestQEMUIsPromoted(t *testing.T) {
	tools := findTools(t)
	p := newPromotion(t)
	nic, other := p.nic(p.a, 1), p.nic(p.other, 2)
	peer := plugIn(t, other)
	must(t, peer.Serve(7000))
	for range 2 {
		q, err := QEMU(within(t, time.Minute), nic, tools)
		must(t, err)
		requirePing(t, q, other)
		must(t, q.Serve(7000))
		for range 2 {
			for _, up := range []bool{true, false} {
				p.during(q, other, func() { p.move(up) })
				p.during(peer, nic, func() { p.move(!up) })
				p.move(up)
				requirePing(t, q, other)
				requirePing(t, peer, nic)
			}
		}
		p.move(true)
		requireTransfer(t, q, other, 1<<20)
		requireTransfer(t, peer, nic, 1<<20)
		must(t, q.Close())
		p.move(false)
	}
}

// during moves the tap while data flow.
func (p *promotion) during(from Guest, to NIC, move func()) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := from.Transfer(ctx, netip.AddrPortFrom(to.Addr.Addr(), 7000), 8<<20)
		done <- err
	}()
	time.Sleep(20 * time.Millisecond)
	move()
	must(p.T, <-done)
}
