package agent

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

// followed is a node with a port that waits for its guest.
type followed struct {
	*node
	a   port.Attachment
	far *nstest.Wire // outside, behind the uplink
	vmm *nstest.Wire
}

// eachFollowed runs f for each kind of port that can wait.
func eachFollowed(t *testing.T, f func(*followed)) {
	t.Helper()
	for _, mode := range []port.Mode{port.Tap, port.HostTap} {
		for _, locked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s locked %v", mode, locked), func(t *testing.T) {
				t.Parallel()
				f(newFollowed(t, mode, locked))
			})
		}
	}
}

func newFollowed(t *testing.T, mode port.Mode, locked bool) *followed {
	t.Helper()
	g := &followed{node: newNode(t), a: wish(mode)}
	g.a.Table, g.a.Locked, g.a.Hairpin = port.Follow, locked, false
	g.a.ToGuest, g.a.FromGuest = shape.Limit{}, shape.Limit{}
	nstest.WaitForwarding(t, g.host, "up0")
	g.far = nstest.OpenLink(t, g.lan, "down0")
	return g
}

// start makes the port, and waits until the agent knows it.
func (g *followed) start() {
	g.Helper()
	g.apply(g.a)
	if st := g.stance(); st.Running {
		g.Fatal("ADD does not leave the port waiting")
	}
	g.known()
}

// known waits for the agent's first look: on its ear depends who is heard first.
func (g *followed) known() {
	g.Helper()
	if !g.a.Locked {
		g.sh(g.host, named("bridge link set dev PORT flood on", g.a))
		g.await("a repair", func() bool { return len(g.log.with("repaired")) > 0 })
		g.log.clear()
	} else {
		g.awaitEar()
	}
}

// awaitEar waits until a guest on a locked port is heard: what it says before is for
// nobody.
func (g *followed) awaitEar() {
	g.Helper()
	g.await("an ear at the port", func() bool {
		return strings.Contains(g.host.Run(g.T, "cat", "/proc/net/packet"), g.index())
	})
}

func (g *followed) index() string {
	l, err := g.host.Handle().LinkByName(g.a.PortName())
	if err != nil {
		g.Fatal(err)
	}
	return fmt.Sprintf("0003   %-5d ", l.Attrs().Index)
}

// boot opens the tap as a VMM does.
func (g *followed) boot() {
	g.Helper()
	ns, name := g.pod, g.a.TapName()
	if g.a.Mode == port.HostTap {
		ns, name = g.host, g.a.PortName()
	}
	g.vmm = nstest.OpenTap(g.T, ns, name)
	nstest.WaitForwarding(g.T, g.host, g.a.PortName())
	g.await("carrier", func() bool { return g.stance().Carrier })
	g.await("the kernel to notice the carrier", func() bool {
		l, err := ns.Handle().LinkByName(name)
		return err == nil && l.Attrs().OperState.String() == "up"
	})
}

func (g *followed) stance() (st attach.Stance) {
	g.Helper()
	g.site(func(s *attach.Site) {
		p, there, err := s.Named(g.a.PortName())
		if err == nil && there {
			st, err = s.Stance(p)
		}
		if err != nil {
			g.Fatal(err)
		}
	})
	return st
}

var everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func (g *followed) frame(from mac.Addr) []byte {
	return nstest.Frame(everybody, from.HardwareAddr(), 0, "guest")
}

// speak is a frame of the guest's.
func (g *followed) speak() {
	g.Helper()
	g.vmm.Send(g.frame(g.a.Guest))
}

func (g *followed) awaitRunning(running bool) {
	g.Helper()
	g.await(fmt.Sprint("running ", running), func() bool { return g.stance().Running == running })
	if wrong := g.wrong(g.a); len(wrong) > 0 {
		g.await("no differences", func() bool { return len(g.wrong(g.a)) == 0 }) // half-way there
	}
}

// arrives counts frames from one side to the other.
func (g *followed) arrives(from, to *nstest.Wire, frame []byte) int {
	g.Helper()
	return nstest.Count(g.T, from, to, frame, 10)
}
