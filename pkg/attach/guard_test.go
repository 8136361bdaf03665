package attach

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// inspect is what is wrong with the only port.
func (n *node) inspect(s *Site) string {
	n.Helper()
	all, err := s.Inspect()
	if err != nil || len(all) != 1 {
		n.Fatalf("inspected %+v, %v", all, err)
	}
	return strings.Join(all[0].Wrong(), "; ")
}

// For people, the guest's addresses are what the rules say; that it has none is
// worth a word.
func TestInspectGuard(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.mustApply(a)
		n.site(func(s *Site) {
			if got := n.inspect(s); !strings.Contains(got, "ipSpoofChk: addresses is none, want those of the guest") {
				n.Errorf("before Admit: %q", got)
			}
			if err := s.Admit(a, "10.0.0.2 fd00::2"); err != nil {
				n.Fatal(err)
			}
			if got := n.inspect(s); got != "" {
				n.Errorf("after Admit: %q", got)
			}
			n.hostRun("nft delete table bridge tapbridge")
			if got := n.inspect(s); !strings.Contains(got, "ipSpoofChk is off, want on") {
				n.Errorf("without rules: %q", got)
			}
		})
	})
}

// The addresses that ADD tells while a repair of the rules is under way stand: the
// agent has looked before that.
func TestAdmittedDuringARepair(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.mustApply(a)
		for _, spoil := range []string{"nft add rule bridge tapbridge guests accept", "nft flush ruleset"} {
			n.hostRun(spoil)
			n.site(func(agent *Site) {
				p, _, err := agent.Named(a.PortName())
				if err != nil {
					n.Fatal(err)
				}
				err = agent.standing(p, HostSide, func(r *repairs, found port.Differences) error {
					if len(found) == 0 {
						n.Errorf("%s: nothing is found", spoil)
					}
					n.site(func(plugin *Site) {
						if err := plugin.Admit(a, "10.0.0.2"); err != nil {
							n.Error(err)
						}
					})
					return r.repair()
				})
				if err != nil {
					n.Errorf("%s: %v", spoil, err)
				}
				want := guard.Of(a.Guest)
				want.Addresses = "10.0.0.2"
				if all, err := agent.observeGuards(); err != nil || all[a.PortName()] != want {
					n.Errorf("%s: guard is %+v, want %+v; %v", spoil, all[a.PortName()], want, err)
				}
				if err := guard.Close(agent.host, a.PortName(), a.Guest, ""); err != nil {
					n.Fatal(err)
				}
			})
		}
	})
}

// Nobody is guarded who has gone: the guard of a port that a DEL has removed would stay.
func TestAdmitOfAGonePort(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		before := n.world()
		n.mustApply(a)
		if err := n.remove(a.ID); err != nil {
			n.Fatal(err)
		}
		n.site(func(s *Site) {
			if err := s.Admit(a, "10.0.0.2"); err == nil || !strings.Contains(err.Error(), "has gone") {
				n.Errorf("admitted: %v", err)
			}
		})
		n.wantWorld(before, "after DEL")
	})
}

// A port that goes with the pod's namespace leaves its guard to the next GC, of any
// network, which keeps that of every port that is there.
func TestGuardOfGonePorts(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.mustApply(a)
		n.site(func(s *Site) {
			for _, name := range []string{"tb000000000000", "tb000000000001"} {
				if err := guard.Close(s.host, name, a.Guest, ""); err != nil {
					n.Fatal(err)
				}
			}
			if err := s.RemoveOthers("another", nil); err != nil {
				n.Error(err)
			}
			left, err := guard.Ports(s.host)
			if err != nil || len(left) != 1 || left[0] != a.PortName() {
				n.Errorf("guarded are %q, %v", left, err)
			}
		})
	})
}

// Ports that come and go at the same time, the last one with the table, do not
// lose each other's guards.
func TestGuardsInParallel(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.world()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			n.site(func(s *Site) {
				a := wish(port.Veth)
				a.ContainerID, a.Guest[5] = fmt.Sprint(i), byte(i)
				w := newWork(s, a, bridge.Bridge{})
				for range 5 {
					n.hostRun(fmt.Sprintf("ip link add %s group %d type veth peer name peer%d", a.PortName(), a.Group(), i))
					want := guard.Of(a.Guest)
					want.Addresses = "10.0.0.2"
					if err := errors.Join(w.closePort(), s.Admit(a, want.Addresses)); err != nil {
						t.Error(err)
					}
					if all, err := s.observeGuards(); err != nil || all[a.PortName()] != want {
						t.Errorf("guard is %+v, want %+v; %v", all[a.PortName()], want, err)
					}
					if err := s.Remove(a.ID); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
	all.Wait()
	n.wantWorld(before, "at last")
}
