package attach

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// walkers are attachments of every kind: a new kind of step is walked over when an
// attachment that has it is added here. Those with VLANs are on the bridge br1,
// which is VLAN-aware where the walk is about that; elsewhere they have none.
var walkers = []port.Attachment{
	{Bridge: "br0", Mode: port.Tap, Table: port.Sticky, MTU: 1400, Options: port.Options{Isolated: true, Locked: true, Guarded: true}, Access: tap.Access{Owner: 107, Group: 108, MultiQueue: true}, ToGuest: slow, FromGuest: slow},
	{Bridge: "br1", Mode: port.Tap, Table: port.Kernel, MTU: 1500, VLANs: "1PU", Access: tap.Access{Owner: 107, Group: 107}},
	{Bridge: "br0", Mode: port.Veth, Table: port.Static, MTU: 1280, Options: port.Options{Guarded: true}, Access: noAccess},
	{Bridge: "br1", Mode: port.Veth, Table: port.Roaming, MTU: 1500, VLANs: "42PU 100", Options: port.Options{Hairpin: true}, Access: noAccess, FromGuest: slow},
	{Bridge: "br1", Mode: port.HostTap, Table: port.Static, MTU: 1500, VLANs: "1U 42 100-110", Access: tap.Access{Owner: 0, Group: tap.Anyone}},
	{Bridge: "br1", Mode: port.Tap, Table: port.Follow, MTU: 1500, VLANs: "42PU 100", Access: tap.Access{Owner: 107, Group: 107}},
	{Bridge: "br0", Mode: port.HostTap, Table: port.Follow, MTU: 1500, Options: port.Options{Locked: true}, Access: tap.Access{Owner: 107, Group: 107}},
	{Bridge: "br0", Mode: port.HostTap, Table: port.Sticky, MTU: 1500, Options: port.Options{Locked: true}, Access: tap.Access{Owner: tap.Anyone, Group: 107}, ToGuest: slow},
}

var (
	noAccess = tap.Access{Owner: tap.Anyone, Group: tap.Anyone}
	slow     = shape.Limit{Rate: 1e6, Burst: 1e5}
)

func TestRandomWalk(t *testing.T) {
	t.Parallel()
	newWalk(t, false).take(15)
}

func TestVLANRandomWalk(t *testing.T) {
	t.Parallel()
	nstest.NeedsVLANs(t)
	newWalk(t, true).take(8)
}

// walk is a node on which attachments come and go at random. What each of them
// adds to the world when it is alone, it must add in whatever company and after
// whatever has happened, and nothing else may be there.
type walk struct {
	*node
	rand    *rand.Rand
	all     []port.Attachment
	live    map[port.ID]bool
	empty   string             // the world without any
	changes map[port.ID]string // to that world by one alone, as nstest.Diff
	path    []string           // of moves so far
}

func newWalk(t *testing.T, aware bool) *walk {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("TAPBRIDGE_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("to walk this way again: TAPBRIDGE_TEST_SEED=%d", seed)
	w := &walk{node: newNode(t), rand: rand.New(rand.NewPCG(seed, 0)), live: map[port.ID]bool{}, changes: map[port.ID]string{}}
	nstest.Bridge(t, w.host, "br1", "02:00:00:00:00:02")
	nstest.Veth(t, w.host, "up1", w.lan, "down1")
	w.hostRun("ip link set up1 master br1")
	if aware {
		w.hostRun("ip link set br1 type bridge vlan_filtering 1")
	}
	w.sysctl(w.pod, "net.ipv6.conf.default.disable_ipv6=1") // else the pod's own addresses come late
	w.meet(aware)
	return w
}

// meet finds out what each attachment does to the world when it is alone.
func (w *walk) meet(aware bool) {
	w.Helper()
	w.empty = w.world()
	for i, a := range walkers {
		a.ID = port.ID{ContainerID: fmt.Sprintf("c%d", i), IfName: fmt.Sprintf("net%d", i)}
		a.Network = []string{"vms", "others"}[i%2]
		a.Guest, a.PortMTU = mac.Addr{0x52, 0x54, 0, 0, 0, byte(i + 1)}, 1500
		if !aware {
			a.VLANs = ""
		}
		w.all = append(w.all, a)
		w.apply(a)
		w.changes[a.ID] = nstest.Diff(w.empty, w.world())
		w.remove(a)
	}
	w.arrive()
}

// take makes moves, and removes at last what is left.
func (w *walk) take(moves int) {
	w.Helper()
	for range moves {
		w.move()
	}
	for _, a := range w.all {
		if w.live[a.ID] {
			w.remove(a)
		}
	}
	w.arrive()
}

// Moves of an attachment, by whether it is there before.
var (
	absentMoves  = []func(*walk, port.Attachment){(*walk).apply, (*walk).apply, (*walk).undo, (*walk).undoWithBridge, (*walk).fail, (*walk).die}
	presentMoves = []func(*walk, port.Attachment){(*walk).remove, (*walk).removeSpoilt, (*walk).removeOthers, (*walk).applyAgain}
)

func (w *walk) move() {
	w.Helper()
	a := pick(w, w.all)
	if w.live[a.ID] {
		pick(w, presentMoves)(w, a)
	} else {
		pick(w, absentMoves)(w, a)
	}
	w.arrive()
}

func pick[T any](w *walk, from []T) T { return from[w.rand.IntN(len(from))] }

// say notes a move.
func (w *walk) say(format string, args ...any) {
	w.path = append(w.path, fmt.Sprintf(format, args...))
}

// must ends the walk, with the way that has led here, unless err is as wanted.
func (w *walk) must(err, want error) {
	w.Helper()
	if !errors.Is(err, want) || err != nil && strings.Contains(err.Error(), "left behind") {
		w.Fatalf("%v, want %v, after\n%s", err, want, strings.Join(w.path, "\n"))
	}
}

// arrive compares the world, and every attachment that is there.
func (w *walk) arrive() {
	w.Helper()
	if diff := nstest.Diff(w.expected(), w.world()); diff != "" {
		w.Fatalf("the world is not as expected (-expected +got):\n%s\nafter\n%s", diff, strings.Join(w.path, "\n"))
	}
	for _, a := range w.all {
		if w.live[a.ID] {
			w.must(w.drift(a), nil)
		}
	}
}

// expected is the empty world with the changes of all that are there. Two may have
// a change in common.
func (w *walk) expected() string {
	gone, added := map[string]bool{}, map[string]bool{}
	for id := range w.live {
		for line := range strings.Lines(w.changes[id]) {
			if rest, is := strings.CutPrefix(line, "- "); is {
				gone[rest] = true
			} else {
				added[strings.TrimPrefix(line, "+ ")] = true
			}
		}
	}
	var world strings.Builder
	for line := range strings.Lines(w.empty) {
		if !gone[line] {
			world.WriteString(line)
		}
	}
	for line := range added {
		world.WriteString(line)
	}
	return world.String()
}

// world leaves out the size of segments that a bridge would hand to a network card,
// which is the smallest of its ports' (net/bridge/br_if.c, br_set_gso_limits).
func (w *walk) world() string {
	w.Helper()
	var world strings.Builder
	for line := range strings.Lines(w.node.world()) {
		if !strings.HasPrefix(line, "0 link br0 tso_max_s") && !strings.HasPrefix(line, "0 link br1 tso_max_s") {
			world.WriteString(line)
		}
	}
	return world.String()
}

func (w *walk) steps(s *Site, a port.Attachment) []step {
	w.Helper()
	br, err := bridge.Find(s.host, a.Bridge)
	w.must(err, nil)
	return newWork(s, a, br).steps()
}

func (w *walk) apply(a port.Attachment) {
	w.Helper()
	w.say("apply %s", a.Record())
	w.site(func(s *Site) { w.must(run(w.steps(s, a)), nil) })
	w.live[a.ID] = true
}

func (w *walk) applyAgain(a port.Attachment) {
	w.Helper()
	w.say("apply %s again", a.ContainerID)
	w.site(func(s *Site) { w.must(run(w.steps(s, a)), ErrExists) })
}

func (w *walk) undo(a port.Attachment) {
	w.Helper()
	w.say("apply %s and undo it", a.ContainerID)
	w.site(func(s *Site) {
		w.must(run(w.steps(s, a)), nil)
		w.must(s.Undo(a), nil)
	})
}

func (w *walk) undoWithBridge(a port.Attachment) {
	w.Helper()
	w.say("apply %s on a new bridge and undo it", a.ContainerID)
	a.Bridge = "br2"
	w.site(func(s *Site) {
		w.must(s.Apply(a, bridge.Bridge{Name: a.Bridge, MTU: a.PortMTU, VLANAware: a.VLANs != "", DefaultPVID: bridge.DefaultPVID}), nil)
		w.must(s.Undo(a), nil)
	})
}

func (w *walk) fail(a port.Attachment) {
	w.Helper()
	w.site(func(s *Site) {
		steps := w.steps(s, a)
		failing := &steps[w.rand.IntN(len(steps))]
		w.say("apply %s, %q fails", a.ContainerID, failing.name)
		failing.do = func() error { return errInjected }
		w.must(run(steps), errInjected)
	})
}

// die is a process that is killed after some steps, and a DEL.
func (w *walk) die(a port.Attachment) {
	w.Helper()
	w.site(func(s *Site) {
		steps := w.steps(s, a)
		last := w.rand.IntN(len(steps))
		w.say("apply %s, killed after %q", a.ContainerID, steps[last].name)
		for _, step := range steps[:last+1] {
			w.must(step.do(), nil)
		}
	})
	w.remove(a)
}

func (w *walk) remove(a port.Attachment) {
	w.Helper()
	from := pick(w, []func(func(*Site)){w.site, w.hostSite})
	w.say("remove %s", a.ContainerID)
	from(func(s *Site) { w.must(s.Remove(a.ID), nil) })
	delete(w.live, a.ID)
}

// spoils are disturbances that the pod's side or the port's survives in part, and
// of which nothing may be left.
var spoils = []disturbance{
	{in: inHost, command: "bridge link set dev PORT learning on flood on isolated off locked off hairpin off", modes: anyMode},
	{in: inHost, command: "ip link del PORT", modes: anyMode},
	{in: inHost, command: "ip link set PORT nomaster", modes: anyMode},
	{in: inHost, command: "ip link set PORT alias mine", modes: anyMode},
	{in: inHost, command: "ip link set PORT group 7", modes: anyMode},
	{in: inHost, command: "ip link set PORT down mtu 1300", modes: anyMode},
	{in: inPod, command: "ip link del POD", modes: podModes},
	{in: inPod, command: "ip link set POD down; ip link set POD name other", modes: podModes},
	{in: inPod, command: "ip link set POD alias mine", modes: podModes},
	{in: inPod, command: "ip link del TAP", modes: tapOnly},
	{in: inPod, command: "ip link set TAP group 7", modes: tapOnly},
	{in: inPod, command: "tc qdisc del dev TAP ingress", modes: tapOnly},
}

// removeSpoilt removes with the pod's namespace at hand: some of the spoils take
// the way to it.
func (w *walk) removeSpoilt(a port.Attachment) {
	w.Helper()
	d := pick(w, slices.DeleteFunc(slices.Clone(spoils), func(d disturbance) bool { return !slices.Contains(d.modes, a.Mode) }))
	w.say("%s, and remove %s", named(d.command, a), a.ContainerID)
	w.disturb(d, a)
	w.must(w.node.remove(a.ID), nil)
	delete(w.live, a.ID)
}

// removeOthers keeps each other attachment of the network, or does not.
func (w *walk) removeOthers(a port.Attachment) {
	w.Helper()
	var keep []port.ID
	for _, other := range w.all {
		if other.Network != a.Network || !w.live[other.ID] {
			continue
		}
		if other.ID != a.ID && w.rand.IntN(2) == 0 {
			keep = append(keep, other.ID)
		} else {
			delete(w.live, other.ID)
		}
	}
	w.say("of network %s keep %v", a.Network, keep)
	w.hostSite(func(s *Site) { w.must(s.RemoveOthers(a.Network, keep), nil) })
}
