package agent

import (
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

// The agent sees a port before IPAM has told its guest's addresses. They stand all the
// same, whatever becomes of the port then; and are given back when somebody has flushed
// the rules.
func TestGuardOfASlowIPAM(t *testing.T) {
	for name, change := range map[string]func(*port.Attachment){
		"tap":              func(*port.Attachment) {},
		"tap, promoted":    func(a *port.Attachment) { a.Promote = true },
		"followed":         func(a *port.Attachment) { a.Table, a.Promote = port.Follow, true },
		"host-tap":         func(a *port.Attachment) { a.Mode = port.HostTap },
		"host-tap, follow": func(a *port.Attachment) { a.Mode, a.Table = port.HostTap, port.Follow },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, a := newNode(t), wish(port.Tap)
			a.Guarded, a.ToGuest, a.FromGuest = true, shape.Limit{}, shape.Limit{}
			change(&a)
			n.keep(false)
			n.apply(a)
			time.Sleep(200 * time.Millisecond) // the agent has seen it
			n.admit(a)
			ns, tap := n.pod, a.TapName()
			if a.Mode == port.HostTap {
				ns, tap = n.host, a.PortName()
			}
			vmm := nstest.OpenTap(t, ns, tap)
			for end := time.Now().Add(2 * interval); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				n.speak(a, vmm)
				if got := n.guardOf(a.PortName()); got != guarded {
					t.Fatalf("the guest may use %q, want %q; the agent says:\n%s", got, guarded, n.log)
				}
			}
			now := a.PortName()
			if n.promoted(a) != a.Promote {
				t.Errorf("promoted is %v; the agent says:\n%s", !a.Promote, n.log)
			} else if a.Promote {
				now = a.PromotedName()
			}
			n.await("the guard", func() bool { return n.guardOf(now) == guarded })
			n.host.Run(t, "nft", "flush", "set", "bridge", "tapbridge", "ipv4")
			n.sh(n.host, "ip link set "+now+" down") // nothing tells of nftables
			n.await("the guard again", func() bool { return n.guardOf(now) == guarded })
		})
	}
}

// guarded is the address of guests with ipSpoofChk.
const guarded = "10.0.0.2"

// admit is what ADD does when IPAM has answered.
func (n *node) admit(a port.Attachment) {
	n.Helper()
	n.site(func(s *attach.Site) {
		if err := s.Admit(a, guarded); err != nil {
			n.Fatal(err)
		}
	})
}

// guardOf is what the guest behind that device may use.
func (n *node) guardOf(device string) (addresses string) {
	n.Helper()
	n.site(func(s *attach.Site) {
		all, err := guard.Observe(s.Host())
		if err != nil {
			n.Fatal(err)
		}
		addresses = all[device].Addresses
	})
	return addresses
}

// What a guest was seen with outlives a look at which somebody has flushed it, but not
// the port.
func TestSeenGuardIsRemembered(t *testing.T) {
	k := newKnown()
	p := attach.Attached{Attachment: wish(port.Tap), Port: rtnl.Link{Index: 7}, Seen: &guard.Guard{Addresses: guarded}}
	k.remember(p)
	for _, flushed := range []*guard.Guard{nil, {Whole: true}} {
		p.Seen = flushed
		k.remember(p)
		if seen := k.ports[p.PortName()].Seen; seen == nil || seen.Addresses != guarded {
			t.Errorf("after %+v it is %+v", flushed, seen)
		}
	}
	p.Port.Index = 8
	k.remember(p)
	if seen := k.ports[p.PortName()].Seen; seen.Addresses != "" {
		t.Errorf("another port's is %+v", seen)
	}
}
