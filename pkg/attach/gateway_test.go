package attach

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/gateway"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// gatewayWish is what a guest with an address in each family needs.
var gatewayWish = gateway.Wish{
	Addresses:  []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64")},
	Masquerade: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")},
	Assign:     true,
}

// servedWish is an attachment to br1, which Apply creates.
func servedWish() port.Attachment {
	a := wish(port.Tap)
	a.Bridge, a.PortMTU, a.Masquerade, a.Guarded = "br1", 1500, true, false
	return a
}

func (n *node) ruleset() string {
	n.Helper()
	return n.host.Run(n.T, "nft", "list", "ruleset")
}

// Each step of Serve fails in turn, before and after it has done its work; addresses,
// sysctls and rules are as before.
func TestEveryStepOfServeFails(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := servedWish()
	n.site(func(s *Site) {
		if err := s.Apply(a, bridge.Bridge{Name: "br1", MTU: 1500}); err != nil {
			t.Fatal(err)
		}
		br, err := bridge.Find(s.host, "br1")
		if err != nil {
			t.Fatal(err)
		}
		nothing := func() error { return nil }
		before := n.world()
		for i := range 2 * len(s.serving(a, br, gatewayWish, nothing)) {
			steps := s.serving(a, br, gatewayWish, nothing)
			step := &steps[i/2]
			want := failing(step, i%2 == 1)
			if err := run(steps); !errors.Is(err, want) || strings.Contains(err.Error(), "left behind") {
				t.Errorf("step %q: %v", step.name, err)
			}
			n.wantWorld(before, "step "+step.name+" failed:")
			if got := n.ruleset(); got != "" {
				t.Errorf("step %q: left is %s", step.name, got)
			}
		}
	})
}

// Undo and Remove take the rules along, a served port has no drift, and what is
// missing is named.
func TestServe(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := servedWish()
	before := n.world()
	n.site(func(s *Site) {
		if err := s.Apply(a, bridge.Bridge{Name: "br1", MTU: 1500}); err != nil {
			t.Fatal(err)
		}
		if err := s.Served(a, gatewayWish); !errors.Is(err, port.ErrDrift) || strings.Count(err.Error(), ";") != 4 {
			t.Errorf("before Serve: %v, want five differences", err) // forwarding is one: the first sysctl that is off
		}
		if err := s.Serve(a, gatewayWish, func() error { return s.Served(a, gatewayWish) }); err != nil {
			t.Error(err)
		}
		if err := n.drift(a); err != nil {
			t.Error(err)
		}
		if err := s.Undo(a); err != nil {
			t.Error(err)
		}
	})
	n.hostRun("sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv6.conf.all.forwarding=0") // no part of Undo: Serve had succeeded
	n.wantWorld(before, "after Undo")
	if got := n.ruleset(); got != "" {
		t.Errorf("left is %s", got)
	}
}

// Removing waits for a Serve under way.
func TestRemoveWaitsForServe(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.host.Do(func() {
		unlock, err := lock(gatewayLock)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan time.Time, 1)
		time.AfterFunc(time.Second/2, func() { served <- time.Now(); unlock() })
		s, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Remove(servedWish().ID); err != nil {
			t.Error(err)
		}
		select {
		case <-served:
		default:
			t.Error("Remove has not waited")
		}
	})
}

// A bridge that Create made is told from others; its mark is no record.
func TestCreatedBridgeIsMarked(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.site(func(s *Site) {
		made, err := bridge.Create(s.host, bridge.Bridge{Name: "br1", MTU: 1500})
		if err != nil || !made.Made {
			t.Fatalf("%+v, %v", made, err)
		}
		l, err := s.host.LinkNamed("br1")
		if err != nil {
			t.Fatal(err)
		}
		if a, err := port.ParseRecord(l.Alias); err == nil || !bridge.Of(l).Made {
			t.Errorf("alias %q is the record %+v", l.Alias, a)
		}
		if n.find(s).Made {
			t.Error("a bridge of another's counts as made")
		}
		all, unrecorded, err := s.List()
		if err != nil || len(all)+len(unrecorded) > 0 {
			t.Errorf("listed are %v, %v, %v", all, unrecorded, err)
		}
	})
}
