package attach

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/port"
)

func TestApplyThenRemoveLeavesNothing(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		before := n.world()
		for range 2 { // the second time meets what the first has left
			n.mustApply(a)
			if err := n.drift(a); err != nil {
				n.Errorf("right after Apply: %v", err)
			}
			if err := n.remove(a.ID); err != nil {
				n.Fatal(err)
			}
			n.wantWorld(before, "after Remove")
		}
	})
}

var errInjected = errors.New("injected")

// Each step of Apply fails in turn, before it has done anything, or after, and
// then in a way that nobody has foreseen; whatever had been done is undone. The
// ways take turns, the other way round where there is no bridge yet.
func TestEveryStepFails(t *testing.T) {
	for _, newBridge := range []bool{false, true} {
		eachMode(t, func(n *node, a port.Attachment) {
			n.everyStepFails(a, newBridge)
		})
	}
}

func (n *node) everyStepFails(a port.Attachment, newBridge bool) {
	n.Helper()
	after := newBridge
	if newBridge {
		a.Bridge = "br1"
	}
	before := n.world()
	for i := range n.steps(a, newBridge) {
		var failed string
		n.site(func(s *Site) {
			steps := newWork(s, a, n.plan(s, newBridge)).steps()
			failed = steps[i].name
			want := failing(&steps[i], after)
			if err := run(steps); !errors.Is(err, want) || strings.Contains(err.Error(), "left behind") {
				n.Errorf("step %q: %v", failed, err)
			}
		})
		n.wantWorld(before, fmt.Sprintf("step %q failed:", failed))
		after = !after
	}
}

// failing makes a step fail, and tells with what error.
func failing(s *step, after bool) error {
	do := s.do
	if !after {
		s.do = func() error { return errInjected }
		return errInjected
	}
	s.do = func() error {
		if err := do(); err != nil {
			return err
		}
		panic("injected")
	}
	return ErrDefect
}

func (n *node) plan(s *Site, newBridge bool) bridge.Bridge {
	if newBridge {
		return bridge.Bridge{Name: "br1", MTU: 1500}
	}
	return n.find(s)
}

func (n *node) steps(a port.Attachment, newBridge bool) (steps []step) {
	n.site(func(s *Site) { steps = newWork(s, a, n.plan(s, newBridge)).steps() })
	return steps
}

// What is left when undoing fails as well is said.
func TestFailedUndoIsReported(t *testing.T) {
	err := run([]step{
		{name: "first", do: func() error { return nil }, undo: func() error { return errors.New("stuck") }},
		{name: "second", do: func() error { return errInjected }},
	})
	if !errors.Is(err, errInjected) || !strings.Contains(err.Error(), `left behind, undoing "first" failed: stuck`) {
		t.Error(err)
	}
}

func TestCreatedBridge(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := wish(port.Tap)
	a.Bridge, a.PortMTU, a.MTU = "br1", 9000, 9000
	n.site(func(s *Site) {
		if err := s.Apply(a, bridge.Bridge{Name: "br1", MTU: 9000}); err != nil {
			n.Fatal(err)
		}
	})
	details := n.host.Run(t, "ip", "-d", "link", "show", "br1")
	for _, want := range []string{"mtu 9000", ",UP", "forward_delay 0 ", "stp_state 0"} {
		if !strings.Contains(details, want) {
			t.Errorf("the bridge lacks %q: %s", want, details)
		}
	}
	first := n.host.Run(t, "ip", "link", "show", "br1")
	// Pinned: neither a lower MAC nor a lower MTU of a port changes it.
	n.host.Run(t, "ip", "link", "add", "x0", "address", "02:00:00:00:00:00", "mtu", "1400", "type", "veth", "peer", "name", "x1")
	n.host.Run(t, "ip", "link", "set", "x0", "master", "br1")
	if got := n.host.Run(t, "ip", "link", "show", "br1"); got != first {
		t.Errorf("a port has changed the bridge: %s, was %s", got, first)
	}
	// It stays for the next attachment.
	if err := n.remove(a.ID); err != nil {
		t.Fatal(err)
	}
	n.host.Run(t, "ip", "link", "show", "br1")
}

// Somebody's device under a name of ours is an error, and left as it is.
func TestNamesInTheWay(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		ways := map[string]*nstest.NS{a.PortName(): n.host, a.IfName: n.pod}
		if a.Mode == port.Tap {
			ways[a.TapName()] = n.pod
		}
		for name, where := range ways {
			where.Run(n.T, "ip", "tuntap", "add", "dev", name, "mode", "tap")
			before := n.world()
			if err := n.apply(a); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), name) {
				n.Errorf("with %q in the way: %v", name, err)
			}
			n.wantWorld(before, "refused:")
			where.Run(n.T, "ip", "link", "del", name)
		}
	})
}

func TestSecondApplyLeavesTheFirstIntact(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.mustApply(a)
		before := n.world()
		if err := n.apply(a); !errors.Is(err, ErrExists) {
			n.Errorf("second Apply: %v", err)
		}
		n.wantWorld(before, "after the second Apply")
	})
}
