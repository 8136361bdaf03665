package attach_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

var lanTables = []port.Table{port.Kernel, port.Sticky, port.Static, port.Roaming}

const (
	lanBridge    = "br0"
	lanBridgeMAC = "02:00:00:00:ff:01"
	guestIfName  = "net1"
)

// lanNode is a node with a quiet bridge, whose uplink ends outside.
type lanNode struct {
	*nstest.NS
	outside lanStation
	guests  byte // made so far
}

// lanStation is a MAC address and the wire it is spoken to on.
type lanStation struct {
	wire *nstest.Wire
	mac  net.HardwareAddr
}

// guest is a station behind an attachment.
type guest struct {
	lanStation
	port.Attachment
	pod  *nstest.NS
	node *lanNode
}

// lanNew makes a node whose bridge has the MTU.
func lanNew(t testing.TB, mtu int) *lanNode {
	t.Helper()
	n, far := lanBare(t), nstest.New(t)
	nstest.Bridge(t, n.NS, lanBridge, lanBridgeMAC)
	nstest.Veth(t, n.NS, "uplink", far, "eth0")
	size := fmt.Sprint(mtu)
	far.Run(t, "ip", "link", "set", "eth0", "mtu", size)
	n.Run(t, "ip", "link", "set", "uplink", "mtu", size, "master", lanBridge)
	n.Run(t, "ip", "link", "set", lanBridge, "mtu", size)
	nstest.WaitForwarding(t, n.NS, "uplink")
	n.outside = lanStation{nstest.OpenLink(t, far, "eth0"), lanMAC("02:00:00:00:ff:02")}
	return n
}

// lanBare makes a node that has nothing yet.
func lanBare(t testing.TB) *lanNode {
	t.Helper()
	return &lanNode{NS: nstest.New(t)}
}

func lanMAC(s string) net.HardwareAddr {
	hw, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return hw
}

// guestOption changes what a guest's attachment asks for.
type guestOption func(*port.Attachment)

func guestLocked(a *port.Attachment)   { a.Locked = true }
func guestIsolated(a *port.Attachment) { a.Isolated = true }
func guestHairpin(a *port.Attachment)  { a.Hairpin = true }
func guestQueues(a *port.Attachment)   { a.Access.MultiQueue = true }
func guestMTU(mtu int) guestOption     { return func(a *port.Attachment) { a.MTU = mtu } }
func guestMAC(s string) guestOption    { return func(a *port.Attachment) { a.Guest = mac.From(lanMAC(s)) } }

// plan is an attachment with a MAC address of its own.
func (n *lanNode) plan(mode port.Mode, table port.Table, options ...guestOption) port.Attachment {
	n.guests++
	a := port.Attachment{
		ID:      port.ID{ContainerID: fmt.Sprintf("pod-%d", n.guests), IfName: guestIfName},
		Network: "lan", Bridge: lanBridge, Mode: mode, Table: table,
		Guest:  mac.Addr{2, 0, 0, 0, 1, n.guests},
		Access: tap.Access{Owner: 107, Group: 107},
	}
	if mode == port.Veth {
		a.Access = tap.Access{Owner: tap.Anyone, Group: tap.Anyone}
	}
	for _, option := range options {
		option(&a)
	}
	return a
}

// guest makes a guest and starts it.
func (n *lanNode) guest(t testing.TB, mode port.Mode, table port.Table, options ...guestOption) *guest {
	t.Helper()
	g := n.add(t, n.plan(mode, table, options...))
	g.start(t)
	return g
}

// add makes the attachment of a guest that does not run yet.
func (n *lanNode) add(t testing.TB, a port.Attachment) *guest {
	t.Helper()
	g := &guest{Attachment: a, pod: nstest.New(t), node: n}
	g.mac = a.Guest.HardwareAddr()
	if err := g.apply(); err != nil {
		t.Fatalf("ADD of a %s with table %s: %v", a.Mode, a.Table, err)
	}
	return g
}

// apply makes the attachment; the MTUs are the bridge's unless given.
func (g *guest) apply() (err error) {
	g.node.Do(func() {
		var site *attach.Site
		if site, err = attach.OpenPod(g.pod.Path); err != nil {
			return
		}
		defer site.Close()
		var br bridge.Bridge
		if br, err = bridge.Find(site.Host(), g.Bridge); err != nil {
			return
		}
		if g.PortMTU = br.MTU; g.MTU == 0 {
			g.MTU = br.MTU
		}
		err = site.Apply(g.Attachment, br)
	})
	return err
}

// del removes the attachment.
func (g *guest) del(t testing.TB) {
	t.Helper()
	var err error
	g.node.Do(func() {
		var site *attach.Site
		if site, err = attach.OpenPod(g.pod.Path); err != nil {
			return
		}
		err = site.Remove(g.ID)
		site.Close()
	})
	if err != nil {
		t.Fatalf("DEL: %v", err)
	}
}

// start opens what a VMM would open, and waits until frames can pass.
func (g *guest) start(t testing.TB) {
	t.Helper()
	g.wire = g.open(t)
	nstest.WaitForwarding(t, g.node.NS, g.PortName())
	if g.Mode == port.Tap {
		guestAwaitTap(t, g.pod, g.TapName())
	}
}

func (g *guest) open(t testing.TB) *nstest.Wire {
	t.Helper()
	switch g.Mode {
	case port.Veth:
		return nstest.OpenLink(t, g.pod, g.IfName)
	case port.HostTap:
		return nstest.OpenTap(t, g.node.NS, g.PortName(), g.queueFlags()...)
	default:
		return nstest.OpenTap(t, g.pod, g.TapName(), g.queueFlags()...)
	}
}

func (g *guest) queueFlags() []uint16 {
	if g.Access.MultiQueue {
		return []uint16{unix.IFF_MULTI_QUEUE}
	}
	return nil
}

// guestAwaitTap waits for the kernel to notice the carrier of a tap that was
// just opened: until then it drops what is sent there.
func guestAwaitTap(t testing.TB, pod *nstest.NS, name string) {
	t.Helper()
	lanUntil(t, "tap "+name+" is in operation", func() bool {
		l, err := pod.Handle().LinkByName(name)
		return err == nil && l.Attrs().OperState == netlink.OperUp
	})
}

func lanUntil(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s: not within 10 s", what)
}

// reaches counts how many of ten frames of s arrive at to.
func (s lanStation) reaches(t testing.TB, to lanStation) int {
	t.Helper()
	return s.reachesWith(t, to, 0)
}

// reachesWith is reaches with frames of that many bytes.
func (s lanStation) reachesWith(t testing.TB, to lanStation, size int) int {
	t.Helper()
	return nstest.Count(t, s.wire, to.wire, nstest.Frame(to.mac, s.mac, size, "frame"), 10)
}

// as is the station when it speaks under another address.
func (s lanStation) as(other lanStation) lanStation { return lanStation{s.wire, other.mac} }

// lanExpect fails the test when a count is not as it should be.
func lanExpect(t testing.TB, what string, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %d of 10 frames arrived, want %d", what, got, want)
	}
}

var lanTags atomic.Uint32

// spread sends ten copies of a frame and counts those that arrive at each of
// the stations.
func (s lanStation) spread(t testing.TB, dst net.HardwareAddr, at ...lanStation) []int {
	t.Helper()
	tag := fmt.Sprintf("<%d>", lanTags.Add(1))
	for range 10 {
		s.wire.Send(nstest.Frame(dst, s.mac, 0, tag))
	}
	tagged := func(frame []byte) bool { return bytes.Contains(frame, []byte(tag)) }
	counts, missing := make([]int, len(at)), 0
	const nap, patience = 2 * time.Millisecond, 150
	for idle, last := 0, -1; idle < patience; idle++ {
		missing = 0
		for i, station := range at {
			counts[i] = station.wire.Received(tagged)
			missing += 10 - counts[i]
		}
		if missing == 0 {
			break
		}
		if missing != last {
			idle, last = 0, missing
		}
		time.Sleep(nap)
	}
	return counts
}

// guestRefused attaches a guest that must be turned away.
func (n *lanNode) guestRefused(t testing.TB, why error, a port.Attachment) {
	t.Helper()
	g := &guest{Attachment: a, pod: nstest.New(t), node: n}
	if err := g.apply(); !errors.Is(err, why) {
		t.Errorf("ADD of guest %s: %v, want %v", a.Guest, err, why)
	}
}
