package attach

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nft"
	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// node is a host's network namespace with a bridge, one pod's, and what is behind
// the bridge's uplink.
type node struct {
	*testing.T
	host, pod, lan *nstest.NS
}

const bridgeMAC = "02:00:00:00:00:01"

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{T: t, host: nstest.New(t), pod: nstest.New(t), lan: nstest.New(t)}
	nstest.Bridge(t, n.host, "br0", bridgeMAC)
	nstest.Veth(t, n.host, "up0", n.lan, "down0")
	n.host.Run(t, "ip", "link", "set", "up0", "master", "br0")
	return n
}

// hostRun runs commands in the host's namespace, one after another.
func (n *node) hostRun(commands ...string) {
	n.Helper()
	for _, command := range commands {
		words := strings.Fields(command)
		n.host.Run(n.T, words[0], words[1:]...)
	}
}

// site calls f with a site opened as the plugin opens it: in the host's
// namespace.
func (n *node) site(f func(*Site)) {
	n.Helper()
	n.host.Do(func() {
		s, err := OpenPod(n.pod.Path)
		if err != nil {
			n.Fatal(err)
		}
		defer s.Close()
		f(s)
	})
}

func (n *node) find(s *Site) bridge.Bridge {
	n.Helper()
	br, err := bridge.Find(s.host, "br0")
	if err != nil {
		n.Fatal(err)
	}
	return br
}

func (n *node) apply(a port.Attachment) (err error) {
	n.Helper()
	n.site(func(s *Site) { err = s.Apply(a, n.find(s)) })
	return err
}

func (n *node) mustApply(a port.Attachment) {
	n.Helper()
	if err := n.apply(a); err != nil {
		n.Fatal(err)
	}
}

// drift is what a comparison says now.
func (n *node) drift(a port.Attachment) (err error) {
	n.Helper()
	n.site(func(s *Site) {
		got, observeErr := s.Observe(a.Want())
		if observeErr != nil {
			n.Fatal(observeErr)
		}
		err = port.Diff(a.Want(), got)
	})
	return err
}

func (n *node) remove(id port.ID) (err error) {
	n.Helper()
	n.site(func(s *Site) { err = s.Remove(id) })
	return err
}

// world has the tables of nftables and the guards as a line each: nft would show
// these as a list, and is slow in an emulated kernel.
func (n *node) world() string {
	n.Helper()
	world := nstest.World(n.host, n.pod)
	n.site(func(s *Site) {
		tables, err := nft.Get(netns.None(), nft.Request(unix.NFPROTO_UNSPEC, unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP))
		if err != nil {
			n.Fatal(err)
		}
		for _, t := range tables {
			world += fmt.Sprintf("0 table %s\n", unix.ByteSliceToString(t.Get(unix.NFTA_TABLE_NAME)))
		}
		guards, err := guard.Observe(s.host)
		if err != nil {
			n.Fatal(err)
		}
		for name, g := range guards {
			world += fmt.Sprintf("0 guard %s %+v\n", name, g)
		}
	})
	return world
}

// wantWorld fails unless the world is what it was before.
func (n *node) wantWorld(before, when string) {
	n.Helper()
	if diff := nstest.Diff(before, n.world()); diff != "" {
		n.Errorf("%s the world is not what it was:\n%s", when, diff)
	}
}

// wish is an attachment to br0 that asks for everything the mode allows.
func wish(mode port.Mode) port.Attachment {
	a := port.Attachment{
		ID:      port.ID{ContainerID: "4f5c", IfName: "net1"},
		Network: "vms", Bridge: "br0", Mode: mode, Table: port.Sticky,
		Guest: mac.Addr{0x52, 0x54, 0, 0x12, 0x34, 0x56},
		MTU:   1400, PortMTU: 1500,
		Options: port.Options{Isolated: true, Hairpin: true, Locked: true, Guarded: true},
		Access:  tap.Access{Owner: 107, Group: 108, MultiQueue: true},
	}
	a.ToGuest, a.FromGuest = shape.Limit{Rate: 50e6, Burst: 1 << 20}, shape.Limit{Rate: 60e6, Burst: 1 << 21}
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
