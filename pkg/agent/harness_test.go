package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// node is a host's network namespace with a bridge that has an uplink, a pod's, and
// devices of a stranger in both.
type node struct {
	*testing.T
	host, pod, lan *nstest.NS
	log            *lines
}

const bridgeMAC = "02:00:00:00:00:01"

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{T: t, host: nstest.New(t), pod: nstest.New(t), lan: nstest.New(t), log: &lines{}}
	nstest.Veth(t, n.host, "up0", n.lan, "down0")
	n.bridge()
	nstest.Veth(t, n.host, "tb0123456789ab", n.pod, "eth0") // a name such as ours
	n.sh(n.host, "ip link set tb0123456789ab master br0; bridge link set dev tb0123456789ab learning off; tc qdisc add dev tb0123456789ab ingress")
	return n
}

func (n *node) bridge() {
	n.Helper()
	nstest.Bridge(n.T, n.host, "br0", bridgeMAC)
	n.sh(n.host, "ip link set up0 master br0")
}

func (n *node) sh(ns *nstest.NS, commands string) {
	n.Helper()
	for command := range strings.SplitSeq(commands, "; ") {
		words := strings.Fields(command)
		ns.Run(n.T, words[0], words[1:]...)
	}
}

func (n *node) site(f func(*attach.Site)) {
	n.Helper()
	n.host.Do(func() {
		s, err := attach.OpenPod(n.pod.Path)
		if err != nil {
			n.Fatal(err)
		}
		defer s.Close()
		f(s)
	})
}

func (n *node) apply(a port.Attachment) {
	n.Helper()
	n.site(func(s *attach.Site) {
		br, err := bridge.Find(s.Host(), a.Bridge)
		if err == nil {
			err = s.Apply(a, br)
		}
		if err != nil {
			n.Fatal(err)
		}
	})
}

func (n *node) remove(id port.ID) {
	n.Helper()
	n.site(func(s *attach.Site) {
		if err := s.Remove(id); err != nil {
			n.Fatal(err)
		}
	})
}

// wrong is what differs at either side.
func (n *node) wrong(a port.Attachment) (all []string) {
	n.Helper()
	n.site(func(s *attach.Site) {
		for _, side := range attach.SidesOf(a) {
			differences, err := s.Compare(attach.Attached{Attachment: a}, side)
			if err != nil {
				n.Fatal(err)
			}
			all = append(all, differences.Texts()...)
		}
	})
	return all
}

// await fails unless the condition holds within 10 s, and returns when it did.
func (n *node) await(what string, condition func() bool) time.Duration {
	n.Helper()
	start := time.Now()
	for time.Since(start) < 10*time.Second {
		if condition() {
			return time.Since(start)
		}
		time.Sleep(5 * time.Millisecond)
	}
	n.Fatalf("not within 10 s: %s; the agent says:\n%s", what, n.log)
	return 0
}

func (n *node) awaitRepair(a port.Attachment, of string) time.Duration {
	n.Helper()
	return n.await("repair of "+of, func() bool { return len(n.wrong(a)) == 0 })
}

func (n *node) world() string { return nstest.World(n.host, n.pod) }

// keep runs an agent until the test, or the returned function, ends it. Nothing is
// compared but what events speak of, and everything once at the start.
func (n *node) keep(observeOnly bool) (stop func()) {
	n.Helper()
	return n.keepWith(Options{ObserveOnly: observeOnly})
}

func (n *node) keepWith(o Options) (stop func()) {
	n.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	o.Interval, o.Log = time.Hour, slog.New(slog.NewJSONHandler(n.log, nil))
	go n.host.Do(func() { ended <- Run(ctx, o) })
	n.await("start", func() bool { return len(n.log.with("started")) > 0 })
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			n.Errorf("Run: %v", err)
		}
	})
	n.Cleanup(stop)
	return stop
}

// wish asks for everything the mode allows.
func wish(mode port.Mode) port.Attachment {
	a := port.Attachment{
		ID:      port.ID{ContainerID: "4f5c", IfName: "net1"},
		Network: "vms", Bridge: "br0", Mode: mode, Table: port.Sticky,
		Guest: mac.Addr{0x52, 0x54, 0, 0x12, 0x34, 0x56},
		MTU:   1400, PortMTU: 1500,
		Options:   port.Options{Isolated: true, Hairpin: true, Locked: true},
		Access:    tap.Access{Owner: 107, Group: 108},
		ToGuest:   shape.Limit{Rate: 50e6, Burst: 1 << 20},
		FromGuest: shape.Limit{Rate: 60e6, Burst: 1 << 21},
	}
	if mode == port.Veth {
		a.Access = tap.Access{Owner: tap.Anyone, Group: tap.Anyone}
	}
	return a
}

func eachMode(t *testing.T, f func(*node, port.Attachment)) {
	t.Helper()
	for _, mode := range port.Modes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			f(newNode(t), wish(mode))
		})
	}
}

// lines are a log.
type lines struct {
	mu  sync.Mutex
	all []line
}

type line struct {
	Level, Msg, Port, Container, Interface, Bridge, Side, Error, Tap, Remedy string
	Differences                                                              []string

	Activations, Withdrawals, Foreign int
}

func (l *lines) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var new line
	err := json.Unmarshal(text, &new)
	l.all = append(l.all, new)
	return len(text), err
}

// with are those whose message begins so.
func (l *lines) with(message string) []line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.all), func(l line) bool { return !strings.HasPrefix(l.Msg, message) })
}

func (l *lines) String() string {
	var text strings.Builder
	for _, line := range l.with("") {
		fmt.Fprintf(&text, "%+v\n", line)
	}
	return text.String()
}

func named(text string, a port.Attachment) string {
	return strings.NewReplacer("PORT", a.PortName(), "POD", a.IfName, "TAP", a.TapName(), "IFB", a.IFBName()).Replace(text)
}
