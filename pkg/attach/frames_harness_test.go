package attach_test

import (
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
func guestVLANs(l bridge.VLANs) guestOption {
	return func(a *port.Attachment) { a.VLANs = l }
}

func guestMAC(s string) guestOption {
	return func(a *port.Attachment) { a.Guest = mac.From(lanMAC(s)) }
}

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
	if g.Mode != port.Veth {
		g.awaitTap(t, "is closed", func(l *netlink.LinkAttrs) bool { return l.RawFlags&unix.IFF_LOWER_UP == 0 })
	}
	g.wire = g.open(t)
	nstest.WaitForwarding(t, g.node.NS, g.PortName())
	if g.Mode != port.Veth {
		g.awaitTap(t, "has its carrier noticed", func(l *netlink.LinkAttrs) bool { return l.OperState == netlink.OperUp })
	}
}

func (g *guest) open(t testing.TB) *nstest.Wire {
	t.Helper()
	if g.Mode == port.Veth {
		return nstest.OpenLink(t, g.pod, g.IfName)
	}
	ns, name := g.tap()
	return nstest.OpenTap(t, ns, name, g.queueFlags()...)
}

// tap is where the VMM finds its tap.
func (g *guest) tap() (ns *nstest.NS, name string) {
	if g.Mode == port.HostTap {
		return g.node.NS, g.PortName()
	}
	return g.pod, g.TapName()
}

// awaitTap is needed twice. Before the tap is opened, a child that another test
// forks at the wrong moment can hold the descriptor that ADD has closed; after
// that, the kernel drops what is sent to the tap until it has noticed the carrier.
func (g *guest) awaitTap(t testing.TB, what string, ok func(*netlink.LinkAttrs) bool) {
	t.Helper()
	ns, name := g.tap()
	lanUntil(t, "tap "+name+" "+what, func() bool {
		l, err := ns.Handle().LinkByName(name)
		return err == nil && ok(l.Attrs())
	})
}

func (g *guest) queueFlags() []uint16 {
	if g.Access.MultiQueue {
		return []uint16{unix.IFF_MULTI_QUEUE}
	}
	return nil
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

// lanFlow is ten frames that one station sends.
type lanFlow struct {
	what string
	from lanStation
	to   net.HardwareAddr
	size int          // of each frame in bytes; 0: the smallest
	at   []lanStation // where the frames are counted, together
	want int          // how many should arrive there
}

// to is what a station sends to another, and how much of it should arrive.
func (s lanStation) to(what string, other lanStation, want int) lanFlow {
	return lanFlow{what: what, from: s, to: other.mac, at: []lanStation{other}, want: want}
}

// as is the station when it speaks under another's address.
func (s lanStation) as(other lanStation) lanStation { return lanStation{s.wire, other.mac} }

// lanExpect fails the test unless of each flow arrives what should. All are
// sent before any is waited for.
func lanExpect(t testing.TB, flows ...lanFlow) {
	t.Helper()
	for i, got := range lanCount(flows...) {
		if f := flows[i]; got != f.want {
			t.Errorf("%s: %d of 10 frames arrived, want %d", f.what, got, f.want)
		}
	}
}

// lanCount sends the flows and counts what arrives of each, until nothing is
// missing or nothing has come for 0.3 s. Where all is as it should be, 0.1 s must
// do to show that no more comes. Time is counted in naps, not by the clock: on
// a starved machine the readers of the wires lose as much of it.
func lanCount(flows ...lanFlow) []int {
	tags := lanSend(flows)
	counts := make([]int, len(flows))
	const nap, short, long = 2 * time.Millisecond, 50, 150
	for idle, arrived := 0, 0; idle < long; idle++ {
		now, missing, fine := lanTally(flows, tags, counts)
		if missing == 0 || fine && idle >= short {
			break
		}
		if now != arrived {
			arrived, idle = now, 0
		}
		time.Sleep(nap)
	}
	return counts
}

var lanSerial atomic.Uint32

// lanSend sends the frames and returns what each flow's are marked with.
func lanSend(flows []lanFlow) (tags []string) {
	for _, f := range flows {
		tag := fmt.Sprintf("flow-%09d", lanSerial.Add(1))
		tags = append(tags, tag)
		frame := nstest.Frame(f.to, f.from.mac, f.size, tag)
		for range 10 {
			f.from.wire.Send(frame)
		}
	}
	return tags
}

// lanTally fills in what has arrived of each flow, and tells whether that is
// what should.
func lanTally(flows []lanFlow, tags []string, counts []int) (arrived, missing int, fine bool) {
	byWire := map[*nstest.Wire]map[string]int{}
	fine = true
	for i, f := range flows {
		counts[i] = 0
		for _, station := range f.at {
			if byWire[station.wire] == nil {
				byWire[station.wire] = lanTags(station.wire)
			}
			counts[i] += byWire[station.wire][tags[i]]
		}
		arrived += counts[i]
		missing += max(0, 10-counts[i])
		fine = fine && counts[i] == f.want
	}
	return arrived, missing, fine
}

// lanTags counts the frames on a wire by their marks.
func lanTags(w *nstest.Wire) map[string]int {
	const start, end = 14, 14 + len("flow-000000001")
	count := map[string]int{}
	for _, frame := range w.Frames() {
		if len(frame) >= end {
			count[string(frame[start:end])]++
		}
	}
	return count
}

// guestRefused attaches a guest that must be turned away.
func (n *lanNode) guestRefused(t testing.TB, why error, a port.Attachment) {
	t.Helper()
	g := &guest{Attachment: a, pod: nstest.New(t), node: n}
	if err := g.apply(); !errors.Is(err, why) {
		t.Errorf("ADD of guest %s: %v, want %v", a.Guest, err, why)
	}
}
