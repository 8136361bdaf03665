// Package migration moves a running VM from one node to another, and counts whom it cannot be reached by meanwhile. It lives in this
// module because of the guest.
package migration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/agent"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/tap"
	"github.com/tapbridge/tapbridge/test/guest"
)

const (
	mtu     = 1500
	brName  = "br0"
	podName = "net1"
)

var (
	vmMAC  = mac.Addr{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	vmAddr = netip.MustParsePrefix("10.50.0.2/24")
)

// lan is two nodes and a switch between them, a client on each, and a VM.
type lan struct {
	*testing.T
	system
	kind
	nodes   []*node // source, target, the switch
	clients []*pinger
}

type node struct {
	*nstest.NS
	conn *rtnl.Conn
	br   int
	pods int
}

var places = []string{"source node", "target node", "network outside"}

// kind is what the VM's attachments ask for.
type kind struct {
	port.Table
	locked bool // macspoofchk
}

var kinds = []kind{{port.Sticky, false}, {port.Static, false}, {port.Roaming, false}, {port.Follow, false}, {port.Follow, true}}

func (k kind) String() string {
	if k.locked {
		return string(k.Table) + " with macspoofchk"
	}
	return string(k.Table)
}

func newLAN(t *testing.T, s system, k kind) *lan {
	t.Helper()
	l := &lan{T: t, system: s, kind: k}
	for i := range places {
		n := &node{NS: nstest.New(t)}
		nstest.Bridge(t, n.NS, brName, fmt.Sprintf("02:00:00:00:ff:%02x", i+1))
		var err error
		n.Do(func() { n.conn, err = rtnl.Open() })
		must(t, err)
		t.Cleanup(n.conn.Close)
		br, err := bridge.Find(n.conn, brName)
		must(t, err)
		n.br = br.Index
		l.nodes = append(l.nodes, n)
	}
	for i, name := range []string{"source", "target"} {
		nstest.Veth(t, l.nodes[i].NS, "uplink", l.nodes[2].NS, name)
		l.nodes[i].Run(t, "ip", "link", "set", "uplink", "master", brName)
		l.nodes[2].Run(t, "ip", "link", "set", name, "master", brName)
		nstest.WaitForwarding(t, l.nodes[i].NS, "uplink")
		nstest.WaitForwarding(t, l.nodes[2].NS, name)
		if k.Table == port.Follow {
			l.nodes[i].follow(t)
		}
	}
	return l
}

// follow runs the node agent until the test ends.
func (n *node) follow(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go n.Do(func() {
		ended <- agent.Run(ctx, agent.Options{Interval: time.Hour, Log: slog.New(slog.DiscardHandler)})
	})
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("agent: %v", err)
		}
	})
}

// seat is a place for the VM: an attachment on a node.
type seat struct {
	port.Attachment
	node *node
	pod  *nstest.NS
}

// attempts is how often an ADD is tried: the verification sees it when a frame of the
// VM's on the uplink has moved the new entry at once, as that of static or roaming.
const attempts = 10

// admit is an ADD.
func (l *lan) admit(n *node, mode port.Mode, k kind, m mac.Addr) seat {
	l.Helper()
	n.pods++
	a := port.Attachment{
		ID: port.ID{ContainerID: fmt.Sprint("pod", n.pods), IfName: podName}, Network: "vms", Bridge: brName,
		Mode: mode, Table: k.Table, Guest: m, MTU: mtu, PortMTU: mtu, Access: tap.Access{Owner: 107, Group: 107},
		Options: port.Options{Locked: k.locked},
	}
	if mode == port.Veth {
		a.Access = tap.Access{Owner: tap.Anyone, Group: tap.Anyone}
	}
	s := seat{a, n, nstest.New(l)}
	s.site(l.T, func(site *attach.Site) error {
		br, err := bridge.Find(site.Host(), brName)
		if err != nil {
			return err
		}
		for range attempts {
			if err = site.Apply(a, br); !errors.Is(err, port.ErrDrift) {
				break
			}
		}
		return err
	})
	return s
}

// leave is its DEL.
func (s seat) leave(t *testing.T) {
	t.Helper()
	s.site(t, func(site *attach.Site) error { return site.Remove(s.ID) })
}

func (s seat) site(t *testing.T, f func(*attach.Site) error) {
	t.Helper()
	var err error
	s.node.Do(func() {
		var site *attach.Site
		if site, err = attach.OpenPod(s.pod.Path); err == nil {
			defer site.Close()
			err = f(site)
		}
	})
	must(t, err)
}

func (s seat) nic() guest.NIC {
	return guest.NIC{NetNS: s.pod.Path, Tap: s.TapName(), MAC: s.Guest.HardwareAddr(), Addr: vmAddr, MTU: mtu}
}

// hasEntry reports whether the VM has its entry on its own port there.
func (s seat) hasEntry() (bool, error) {
	found, there, err := fdb.Lookup(s.node.conn, s.node.br, s.Guest, 0)
	if err != nil || !there || found.State != fdb.Static {
		return false, err
	}
	l, err := s.node.conn.LinkNamed(s.PortName())
	return err == nil && l.Index == found.Index, nil
}

// plug connects a client, which knows the VM's address: what is counted is not the
// patience of ARP.
func (l *lan) plug(n *node, i int) {
	l.Helper()
	s := l.admit(n, port.Veth, kind{Table: port.Kernel}, mac.Addr{2, 0, 0, 0, 2, byte(i + 1)})
	s.pod.Run(l, "ip", "addr", "add", fmt.Sprintf("10.50.0.%d/24", 11+i), "dev", podName)
	s.pod.Run(l, "ip", "neigh", "replace", vmAddr.Addr().String(), "lladdr", vmMAC.String(), "dev", podName, "nud", "permanent")
	nstest.WaitForwarding(l, n.NS, s.PortName())
	l.clients = append(l.clients, startPinger(l.T, s.pod, vmAddr.Addr()))
}

// dwell lets every client send so many requests.
func (l *lan) dwell(requests int) {
	l.Helper()
	until := make([]int, len(l.clients))
	for i, c := range l.clients {
		sent, _ := c.counts()
		until[i] = sent + requests
	}
	l.await("requests", func() bool {
		for i, c := range l.clients {
			if sent, _ := c.counts(); sent < until[i] {
				return false
			}
		}
		return true
	})
}

func (l *lan) await(what string, ok func() bool) {
	l.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	l.Fatalf("%s: not within %v", what, patience)
}

// look is where the VM was to be found at a moment.
type look struct {
	at             time.Time
	source, target bool // which nodes have its entry
	announced      bool // the switch knows it at the target
}

// watcher looks a thousand times a second, for as long as the machine lets it.
type watcher struct {
	l     *lan
	stop  func()
	mu    sync.Mutex
	fresh *seat // nil: no ADD on the target yet
	looks []look
}

func (l *lan) watch(old seat) *watcher {
	l.Helper()
	beyond, err := l.nodes[2].conn.LinkNamed("target")
	must(l, err)
	w := &watcher{l: l}
	stop, done := make(chan struct{}), make(chan struct{})
	w.stop = sync.OnceFunc(func() { close(stop); <-done })
	l.Cleanup(w.stop)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				w.look(old, beyond.Index)
			}
		}
	}()
	return w
}

func (w *watcher) look(old seat, beyond int) {
	w.mu.Lock()
	fresh := w.fresh
	w.mu.Unlock()
	var now look
	var errTarget error
	source, err := old.hasEntry()
	if now.source = source; fresh != nil {
		now.target, errTarget = fresh.hasEntry()
	}
	sw := w.l.nodes[2]
	found, there, errSwitch := fdb.Lookup(sw.conn, sw.br, vmMAC, 0)
	now.announced = there && found.Index == beyond
	if err := errors.Join(err, errTarget, errSwitch); err != nil {
		w.l.Error(err)
	}
	now.at = time.Now() // what was seen is not younger
	w.looks = append(w.looks, now)
}

func (w *watcher) has(s seat) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fresh = &s
}

// first is the moment of the first look from then on that is as wanted.
func first(looks []look, then time.Time, wanted func(look) bool) time.Time {
	for _, l := range looks {
		if l.at.After(then) && wanted(l) {
			return l.at
		}
	}
	return then
}

// outcome is what one migration cost.
type outcome struct {
	kind
	moves
	lost  [][3]int          // of each client: before, while and after the VM stood still
	late  [][]time.Duration // after that, when
	looks []look
	died  bool // the VM, which QEMU has not brought over alive: that tells nothing of the network
}

// String are the table's rows.
func (o outcome) String() string {
	var rows strings.Builder
	for i, place := range places {
		fmt.Fprintf(&rows, "| %s | %s | %d | %d | %d |\n", o.kind, place, o.lost[i][0], o.lost[i][1], o.lost[i][2])
	}
	return rows.String()
}

// requests are those that each phase lasts at least.
const requests = 60

// migrate is one live migration of the saved machine.
func migrate(t *testing.T, s system, saved string, k kind) (o outcome) {
	t.Helper()
	l := newLAN(t, s, k)
	old := l.admit(l.nodes[0], port.Tap, k, vmMAC)
	vm := s.restored(t, old.pod, old.nic(), saved)
	for i, n := range l.nodes {
		l.plug(n, i)
	}
	l.await("everybody reaches the VM", func() bool {
		for _, c := range l.clients {
			if _, answered := c.counts(); answered < 10 {
				return false
			}
		}
		return true
	})
	m := moves{begin: time.Now()} // what was lost until then was ARP's
	w := l.watch(old)
	l.dwell(requests / 2)

	fresh := l.admit(l.nodes[1], port.Tap, k, vmMAC)
	w.has(fresh)
	nstest.Veth(t, old.pod, "mig0", fresh.pod, "mig0")
	old.pod.Run(t, "ip", "addr", "add", "10.99.0.1/24", "dev", "mig0")
	fresh.pod.Run(t, "ip", "addr", "add", "10.99.0.2/24", "dev", "mig0")
	target := s.start(t, fresh.pod, fresh.nic(), "-S", "-incoming", "tcp:10.99.0.2:4444")
	l.dwell(requests)
	m.stopped, m.left, m.resumed = vm.migrate(target, "10.99.0.2:4444")
	l.dwell(requests)
	old.leave(t)
	l.dwell(requests)
	o = outcome{kind: k, moves: m, died: !l.hasSurvived(target, fresh)}
	for _, c := range l.clients {
		c.end()
	}
	w.stop()
	m.found = first(w.looks, m.resumed, func(l look) bool { return l.announced && (k.Table != port.Follow || l.target && !l.source) })
	o.moves, o.looks = m, w.looks
	for _, c := range l.clients {
		lost, late := c.lost(m)
		o.lost, o.late = append(o.lost, lost), append(o.late, late)
	}
	return o
}

func TestLiveMigration(t *testing.T) {
	s := findSystem(t)
	saved := boot(t, s)
	var rows strings.Builder
	for _, k := range kinds {
		t.Run(k.String(), func(t *testing.T) {
			o := migrate(t, s, saved, k)
			for lives := 3; o.died && lives > 0; lives-- {
				o = migrate(t, s, saved, k)
			}
			fmt.Fprint(&rows, o)
			t.Logf("the VM stood still for %v, and was found again after %v", o.resumed.Sub(o.stopped), o.found.Sub(o.resumed))
			if o.check(t); k.Table == port.Follow {
				o.checkEntries(t)
			}
		})
	}
	t.Logf("requests lost:\n%s", &rows)
}

// check holds a migration to what the page says of its kind.
func (o outcome) check(t *testing.T) {
	t.Helper()
	const source, target, outside = 0, 1, 2
	const before, after = 0, 2
	loses := func(client, phase int) {
		t.Helper()
		if o.lost[client][phase] == 0 {
			t.Errorf("the client on the %s loses nothing in phase %d", places[client], phase)
		}
	}
	switch o.Table {
	case port.Sticky:
		loses(target, before)
		loses(source, after)
	case port.Static:
		loses(outside, after)
	case port.Follow:
		for i, place := range places {
			if lost := o.lost[i]; lost[before] > 0 || lost[after] > 0 {
				t.Errorf("the client on the %s loses %d before and %d after the VM stood still, %v after it was found", place, lost[before], lost[after], o.late[i])
			}
		}
	}
}

// checkEntries demands that the entry is where the VM is: nowhere else while it runs
// on the source, nowhere else after it has gone. Between a node's last look at the VM
// and the other's first there is nobody who could tell both.
func (o outcome) checkEntries(t *testing.T) {
	t.Helper()
	both := 0
	for _, l := range o.looks {
		switch {
		case l.at.Before(o.stopped) && (!l.source || l.target), l.at.After(o.found) && (l.source || !l.target), l.target && l.at.Before(o.left):
			t.Errorf("%v after the VM has stopped: entry on the source %v, on the target %v", l.at.Sub(o.stopped), l.source, l.target)
			return
		case l.source && l.target:
			both++
		}
	}
	t.Logf("of %d looks %d saw the entry on both nodes", len(o.looks), both)
}

// boot returns a file with a machine that has booted.
func boot(t *testing.T, s system) string {
	t.Helper()
	plain := kind{Table: port.Kernel}
	l := newLAN(t, s, plain)
	at := l.admit(l.nodes[0], port.Tap, plain, vmMAC)
	m := s.start(t, at.pod, at.nic(), "-S")
	serial := connect(m, m.console)
	m.do("cont", nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := guest.Boot(ctx, serial)
	must(t, err)
	saved := t.TempDir() + "/saved"
	m.save(saved)
	return saved
}
