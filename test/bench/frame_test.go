package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
	"github.com/tapbridge/tapbridge/test/guest"
)

// path is a way from a guest to the bridge and back.
type path struct {
	name    string
	mode    port.Mode
	change  func(*station) // what is different from what ADD makes
	promote bool           // the tap is the port once it is open
}

// station is a guest's place on a path.
type station struct {
	testing.TB
	port.Attachment
	node *node
	pod  *nstest.NS
	ns   *nstest.NS // where the tap is
	tap  string     // its name
}

var (
	hostTap    = path{name: "host-tap", mode: port.HostTap}
	asMade     = path{name: "tap", mode: port.Tap}
	promoted   = path{name: "tap, promoted", mode: port.Tap, promote: true}
	secondHand = path{name: "second bridge", mode: port.Veth, change: (*station).secondBridge}
)

// paths begin with what the others are compared with. What is called tap is what
// ADD makes; the next ones differ from it in one thing.
var paths = []path{
	hostTap, asMade,
	{"tap, mirred", port.Tap, (*station).mirred, false},
	{"tap, bpf without peer", port.Tap, func(s *station) { s.instead(asm.FnRedirect, false) }, false},
	{"tap, tcx without peer", port.Tap, func(s *station) { s.instead(asm.FnRedirect, true) }, false},
	{"tap, tcx", port.Tap, func(s *station) { s.instead(asm.FnRedirectPeer, true) }, false},
	{"tap, veth with GRO", port.Tap, (*station).gro, false},
	{"tap, queue at the tap", port.Tap, (*station).fifo, false},
	promoted, secondHand,
}

func (p path) station(n *node, number int) *station {
	n.t.Helper()
	s := &station{TB: n.t, Attachment: attachment(p.mode, port.Sticky, number), node: n, pod: nstest.New(n.t)}
	s.Promote = p.promote
	n.attach(s.pod, s.Attachment)
	if s.ns, s.tap = s.pod, s.TapName(); p.mode == port.HostTap {
		s.ns, s.tap = n.NS, s.PortName()
	}
	if p.change != nil {
		p.change(s)
	}
	return s
}

func (s *station) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *station) index(name string) int {
	s.Helper()
	l, err := s.pod.Handle().LinkByName(name)
	s.must(err)
	return l.Attrs().Index
}

// separate takes the redirect away.
func (s *station) separate() {
	s.Helper()
	for _, name := range []string{s.tap, s.IfName} {
		s.pod.Run(s, "tc", "qdisc", "del", "dev", name, "ingress")
	}
}

func (s *station) mirred() {
	s.Helper()
	s.separate()
	tap, inner := s.index(s.tap), s.index(s.IfName)
	c, err := rtnl.OpenAt(s.pod.Path)
	s.must(err)
	defer c.Close()
	s.must(redirect.Pass(c, tap, inner))
	s.must(redirect.Pass(c, inner, tap))
}

// instead redirects by eBPF, with that function on the way out.
func (s *station) instead(out asm.BuiltinFunc, tcx bool) {
	s.Helper()
	s.separate()
	s.bpf(out, tcx)
}

// bpf attaches the programs at tcx, or at an ingress qdisc.
func (s *station) bpf(out asm.BuiltinFunc, tcx bool) {
	s.Helper()
	tap, inner := s.index(s.tap), s.index(s.IfName)
	s.run(tap, inner, out, tcx)
	s.run(inner, tap, asm.FnRedirect, tcx)
}

func (s *station) run(from, to int, function asm.BuiltinFunc, tcx bool) {
	s.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(to)), asm.Mov.Imm(asm.R2, 0), function.Call(), asm.Return(),
	}})
	s.must(err)
	defer p.Close()
	if !tcx {
		c, err := rtnl.OpenAt(s.pod.Path)
		s.must(err)
		defer c.Close()
		s.must(filter(c, from, p.FD()))
		return
	}
	s.pod.Do(func() {
		s.must(link.RawAttachProgram(link.RawAttachProgramOptions{Target: from, Program: p, Attach: ebpf.AttachTCXIngress}))
	})
}

func (s *station) gro() {
	s.Helper()
	s.ethtool(s.pod, func(e *ethtool.Ethtool) error { return e.Change(s.IfName, map[string]bool{"rx-gro": true}) })
}

func (s *station) ethtool(in *nstest.NS, do func(*ethtool.Ethtool) error) {
	s.Helper()
	in.Do(func() {
		e, err := ethtool.NewEthtool()
		s.must(err)
		defer e.Close()
		s.must(do(e))
	})
}

func (s *station) fifo() {
	s.Helper()
	s.pod.Run(s, "tc", "qdisc", "replace", "dev", s.tap, "root", "pfifo_fast")
}

// secondBridge is how KubeVirt's own binding joins tap and pod interface, which
// must not have the guest's MAC address then: the bridge would take its frames for
// itself.
func (s *station) secondBridge() {
	s.Helper()
	s.pod.Run(s, "ip", "link", "set", s.IfName, "address", "02:00:00:00:00:04")
	s.pod.Run(s, "ip", "tuntap", "add", "dev", s.tap, "mode", "tap")
	nstest.Bridge(s, s.pod, "k6t", "02:00:00:00:00:03")
	for _, name := range []string{s.tap, s.IfName} {
		s.pod.Run(s, "ip", "link", "set", name, "master", "k6t", "up")
	}
}

func (s *station) open(offloads bool) (fd int) {
	s.Helper()
	if s.Promote {
		s.demote()
	}
	s.ns.Do(func() {
		var err error
		fd, err = openTap(s.tap, offloads)
		s.must(err)
	})
	if s.Promote {
		s.promote()
	}
	return fd
}

// What a frame of TCP consists of, in bytes.
const (
	ethernet, ip, tcp = 14, 20, 20
	headers           = ethernet + ip + tcp
	segment           = 1448
)

// traffic is a kind of frames and where they go.
type traffic struct {
	name     string
	size     int // bytes, without the header for offloads
	offloads bool
	uplink   bool
}

var traffics = []traffic{
	{"guest to guest, 60 bytes", 60, false, false},
	{"guest to guest, 1514 bytes", 1514, false, false},
	{"guest to uplink, 60 bytes", 60, false, true},
	{"guest to uplink, 1514 bytes", 1514, false, true},
	{"guest to guest, TSO, 45 segments", headers + 45*segment, true, false},
}

// line is two guests on a path, on a bridge of their own with an uplink.
type line struct {
	path
	from, to *station
	far      *nstest.NS // behind the uplink
}

var farMAC = []byte{2, 0, 0, 0, 0, 9}

func newLine(t *testing.T, p path) *line {
	t.Helper()
	n := newNode(t, 0)
	l := &line{path: p, far: nstest.New(t)}
	nstest.Veth(t, n.NS, "up0", l.far, "down0")
	n.Run(t, "ip", "link", "set", "up0", "master", "br0")
	n.Run(t, "bridge", "fdb", "replace", "02:00:00:00:00:09", "dev", "up0", "master", "static")
	l.from, l.to = p.station(n, 1), p.station(n, 2)
	return l
}

// frame is TCP if it is to be cut.
func (l *line) frame(k traffic) []byte {
	to := l.to.Guest.HardwareAddr()
	if k.uplink {
		to = farMAC
	}
	if !k.offloads {
		return nstest.Frame(to, l.from.Guest.HardwareAddr(), k.size, "benchmark")
	}
	b := make([]byte, headerLen+k.size)
	b[0], b[1] = 1, 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4
	for at, value := range map[int]uint16{2: headers, 4: segment, 6: ethernet + ip, 8: 16} {
		binary.NativeEndian.PutUint16(b[at:], value)
	}
	f := b[headerLen:]
	copy(f, to)
	copy(f[6:], l.from.Guest.HardwareAddr())
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	f[14], f[22], f[23], f[46] = 0x45, 64, unix.IPPROTO_TCP, 0x50
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-ethernet))
	copy(f[26:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	f[47] = 0x10 // ACK
	binary.BigEndian.PutUint16(f[24:], checksum(f[ethernet:ethernet+ip]))
	return b
}

// checksum is that of an IPv4 header, for the kernel looks at it where netfilter
// sees frames on bridges (net/bridge/br_netfilter_hooks.c, br_validate_ipv4).
func checksum(header []byte) uint16 {
	sum := uint32(0)
	for ; len(header) > 0; header = header[2:] {
		sum += uint32(binary.BigEndian.Uint16(header))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// figures are what came of one kind of traffic on one path.
type figures struct{ sent, received, sender, receiver sample }

// frames sends as fast as it goes, on all paths in turns.
func frames(t *testing.T, e extent, _ programs, r *report) {
	lines := make([]*line, len(paths))
	for i, p := range paths {
		lines[i] = newLine(t, p)
	}
	r.heading("The path of a frame")
	r.text("One thread writes frames into a guest's tap, another reads them from the other guest's tap, or they leave by the bridge's uplink. "+
		"In parentheses: of `host-tap`, where the tap itself is the port. CPU is processor time of the two threads per frame, the kernel's work in them included; "+
		"what arrives at an uplink costs nobody's thread. `tap` is what ADD makes (%s); the others differ from it in one thing.", redirect.Both)
	got := map[string][]figures{}
	for _, k := range traffics {
		got[k.name] = exchange(t, e, lines, k)
		tellFrames(r, k, got[k.name])
	}
	plot := bars{axis: "frames sent, of host-tap's"}
	for _, k := range traffics {
		var shares []float64
		for _, f := range got[k.name][1:] {
			shares = append(shares, ratio(f.sent.median(), got[k.name][0].sent.median()))
		}
		plot.add(k.name, shares...)
	}
	for _, p := range paths[1:] {
		plot.groups = append(plot.groups, p.name)
	}
	r.plot("frames", "Frames sent, by path", &plot)
	tellAttaching(t, e, r)
	tellSwitching(t, e, r)
	small, second := got[traffics[0].name], len(paths)-1
	r.promise("frames/s, mode tap, of host-tap", ratio(small[1].sent.median(), small[0].sent.median()), "≥", 0.68)
	r.promise("frames/s, mode tap, of a second bridge in the pod", ratio(small[1].sent.median(), small[second].sent.median()), "≥", 1.4)
	r.promise("frames/s, mode tap, promoted, of host-tap", ratio(small[second-1].sent.median(), small[0].sent.median()), "≥", 0.95)
}

func exchange(t *testing.T, e extent, lines []*line, k traffic) []figures {
	t.Helper()
	all, from, to := make([]figures, len(lines)), make([]int, len(lines)), make([]int, len(lines))
	for i, l := range lines {
		from[i], to[i] = l.from.open(k.offloads), l.to.open(k.offloads)
		defer unix.Close(from[i])
		defer unix.Close(to[i])
		l.await(from[i], to[i], k)
	}
	for range e.pumped {
		for i, l := range lines {
			sent, received := l.pump(from[i], to[i], k, e.pumping)
			f := &all[i]
			f.sent.add(sent.rate())
			f.received.add(received.rate())
			f.sender.add(sent.cost())
			f.receiver.add(received.cost())
		}
	}
	return all
}

func (l *line) pump(from, to int, k traffic, d time.Duration) (sent, received side) {
	before := l.arrived()
	sent, received = pump(from, to, l.frame(k), d)
	if k.uplink {
		received = side{frames: l.arrived() - before, took: sent.took}
	}
	return sent, received
}

// await is for the carrier, which the kernel notices in its own time.
func (l *line) await(from, to int, k traffic) {
	for range 1000 {
		if _, received := l.pump(from, to, k, time.Millisecond); received.frames > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.from.Fatalf("%s: no frame arrives, %s", l.name, k.name)
}

// arrived counts what has come out of the uplink.
func (l *line) arrived() int {
	down, err := l.far.Handle().LinkByName("down0")
	l.from.must(err)
	return int(down.Attrs().Statistics.RxPackets)
}

func tellFrames(r *report, k traffic, all []figures) {
	rows := [][]string{{k.name, "sent/s", "received/s", "CPU of the sender, ns", "of the receiver, ns"}}
	for i, f := range all {
		cell := func(of func(figures) sample) string {
			return fmt.Sprintf("%.0f (%.2f)", of(f).median(), ratio(of(f).median(), of(all[0]).median()))
		}
		row := []string{paths[i].name, cell(func(f figures) sample { return f.sent }), cell(func(f figures) sample { return f.received }), cell(func(f figures) sample { return f.sender })}
		if k.uplink {
			row = append(row, "")
		} else {
			row = append(row, cell(func(f figures) sample { return f.receiver }))
		}
		rows = append(rows, row)
	}
	r.table(rows...)
}

// tellAttaching is the price of the redirect at ADD.
func tellAttaching(t *testing.T, e extent, r *report) {
	n := newNode(t, 0)
	var filters, tcx sample
	for i := range e.streams {
		s := asMade.station(n, i)
		s.separate()
		begin := time.Now()
		s.bpf(asm.FnRedirectPeer, false)
		filters.took(time.Since(begin))
		s.separate()
		begin = time.Now()
		s.bpf(asm.FnRedirectPeer, true)
		tcx.took(time.Since(begin))
	}
	r.text("Loading and attaching the two programs takes %s ms as filters of an ingress qdisc, which is what ADD does, and %s ms at tcx, "+
		"where the kernel waits for all readers each time and lets nobody else change a device meanwhile.", filters, tcx)
}

// streams are TCP between guests that have a stack of their own in this process.
func streams(t *testing.T, e extent, _ programs, r *report) {
	r.heading("TCP between two guests")
	r.text("Gbit/s of payload between two user-space stacks (gVisor), which take most of the time themselves. With offloads: `vnet_hdr`, checksums and TSO.")
	chosen := []path{hostTap, asMade, paths[2], secondHand}
	rows := [][]string{{"", "with offloads", "without"}}
	medians := map[string]float64{}
	cells := map[string]string{}
	for _, offloads := range []bool{true, false} {
		rates := make([]sample, len(chosen))
		var wires []func() float64
		for _, p := range chosen {
			wires = append(wires, stream(t, newLine(t, p), offloads, e.transfer))
		}
		for range e.streams {
			for i, transfer := range wires {
				rates[i].add(transfer())
			}
		}
		for i, p := range chosen {
			key := fmt.Sprint(p.name, offloads)
			medians[key], cells[key] = rates[i].median(), rates[i].String()
		}
	}
	for _, p := range chosen {
		rows = append(rows, []string{p.name, cells[p.name+"true"], cells[p.name+"false"]})
	}
	r.table(rows...)
	r.promise("TCP with TSO, mode tap, of host-tap", ratio(medians["taptrue"], medians["host-taptrue"]), "≥", 0.8)
}

// stream makes two guests ready, and returns what transfers once and tells the
// rate.
func stream(t *testing.T, l *line, offloads bool, bytes int64) func() float64 {
	t.Helper()
	start := func(s *station, last byte) guest.Guest {
		addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), 24)
		g, err := guest.Netstack(t.Context(), guest.NIC{NetNS: s.ns.Path, Tap: s.tap, MAC: s.Guest.HardwareAddr(), Addr: addr, MTU: mtu, Offloads: offloads})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = g.Close() })
		return g
	}
	from, to := start(l.from, 1), start(l.to, 2)
	const service = 7000
	if err := to.Serve(service); err != nil {
		t.Fatal(err)
	}
	return func() float64 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		sent, err := from.Transfer(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 2}), service), bytes)
		if err != nil {
			t.Fatalf("%s: %v", l.name, err)
		}
		return float64(sent.Bytes) * 8 / 1e9 / sent.Took.Seconds()
	}
}
