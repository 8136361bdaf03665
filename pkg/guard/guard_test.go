package guard

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nft"
	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

var guest = mac.Addr{0x52, 0x54, 0, 0x12, 0x34, 0x56}

const (
	one   = "tb0123456789ab"
	other = "tb0123456789ac"
)

// node is a network namespace.
type node struct {
	*testing.T
	*nstest.NS
}

func newNode(t *testing.T) node {
	t.Helper()
	t.Parallel()
	return node{t, nstest.New(t)}
}

func (n node) nft(words string) string {
	n.Helper()
	return n.NS.Run(n.T, "nft", strings.Fields(words)...)
}

// inside calls f in the node, as the plugin would.
func (n node) inside(f func(c *rtnl.Conn) error) {
	n.Helper()
	n.Do(func() {
		c, err := rtnl.Open()
		if err != nil {
			n.Fatal(err)
		}
		defer c.Close()
		if err := f(c); err != nil {
			n.Error(err)
		}
	})
}

func (n node) want(c *rtnl.Conn, want Observed) error {
	n.Helper()
	got, err := Observe(c)
	if diff := cmp.Diff(want, got); diff != "" {
		n.Errorf("guards (-want +got):\n%s", diff)
	}
	return err
}

func TestList(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"10.0.0.2":                     "10.0.0.2",
		"fd00::2":                      "fd00::2 fe80::5054:ff:fe12:3456",
		"fd00::2 10.0.0.2 10.0.0.2":    "10.0.0.2 fd00::2 fe80::5054:ff:fe12:3456",
		"fe80::5054:ff:fe12:3456":      "fe80::5054:ff:fe12:3456",
		"fe80::1 10.0.0.10 10.0.0.9":   "10.0.0.9 10.0.0.10 fe80::1 fe80::5054:ff:fe12:3456",
		"2001:db8::ffff 2001:db8::1:0": "2001:db8::ffff 2001:db8::1:0 fe80::5054:ff:fe12:3456",
	} {
		var list []netip.Addr
		for _, word := range strings.Fields(in) {
			list = append(list, netip.MustParseAddr(word))
		}
		if got := List(guest, list); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// What one port adds goes with it, and the table with the last.
func TestRemoveLeavesNothing(t *testing.T) {
	n := newNode(t)
	list := "10.0.0.9 10.0.0.10 fd00::2 fe80::1"
	n.inside(func(c *rtnl.Conn) error {
		closed, open := Of(guest), Of(guest)
		open.Addresses = list
		return errors.Join(
			Close(c, one, guest, ""), n.want(c, Observed{one: closed}),
			Admit(c, one, guest, list), n.want(c, Observed{one: open}),
			Close(c, other, guest, ""), n.want(c, Observed{one: open, other: closed}),
			Remove(c, one), n.want(c, Observed{other: closed}),
			Remove(c, one), n.want(c, Observed{other: closed}),
			Remove(c, other), n.want(c, Observed{}))
	})
	if left := n.nft("list ruleset"); left != "" {
		t.Errorf("left is %s", left)
	}
}

// Whoever flushes the ruleset between Close and Admit takes nothing from the guest, also
// where another port has brought the table back.
func TestAdmitAfterAFlush(t *testing.T) {
	for name, comesBack := range map[string]bool{"flushed": false, "and back with another port": true} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.inside(func(c *rtnl.Conn) error {
				open := Of(guest)
				open.Addresses = "10.0.0.2"
				want := Observed{one: open}
				err := Close(c, one, guest, "")
				n.nft("flush ruleset")
				if comesBack {
					want[other] = Of(guest)
					err = errors.Join(err, Close(c, other, guest, ""))
				}
				return errors.Join(err, Admit(c, one, guest, open.Addresses), n.want(c, want))
			})
		})
	}
}

// The addresses of an earlier port of the name do not pass on to the next.
func TestCloseForgetsAnEarlierPort(t *testing.T) {
	n := newNode(t)
	n.inside(func(c *rtnl.Conn) error {
		return errors.Join(
			Close(c, one, mac.Addr{2, 0, 0, 0, 0, 1}, ""), Admit(c, one, mac.Addr{2, 0, 0, 0, 0, 1}, "10.0.0.2 fd00::2"),
			Close(c, one, guest, ""), n.want(c, Observed{one: Of(guest)}))
	})
}

// Whatever somebody has done to the rules, the next port mends it, and the others
// keep their addresses.
func TestCloseMendsTheRules(t *testing.T) {
	for _, spoil := range []string{
		"flush chain bridge tapbridge guests",
		"insert rule bridge tapbridge guests accept",
		"add rule bridge tapbridge guests_arp accept",
		"add table bridge tapbridge {flags dormant;}",
	} {
		t.Run(spoil, func(t *testing.T) {
			n := newNode(t)
			open := Of(guest)
			open.Addresses = "10.0.0.2"
			spoilt := open
			spoilt.Whole = false
			n.inside(func(c *rtnl.Conn) error {
				err := errors.Join(Close(c, one, guest, ""), Admit(c, one, guest, "10.0.0.2"))
				n.nft(spoil)
				return errors.Join(err, n.want(c, Observed{one: spoilt}), Close(c, other, guest, ""), n.want(c, Observed{one: open, other: Of(guest)}))
			})
		})
	}
}

// The last port goes with the table also where that lacks a chain or a set, as one that
// an older version has made does.
func TestRemoveOfAnotherVersion(t *testing.T) {
	for _, missing := range []string{"chain bridge tapbridge guests_igmp", "set bridge tapbridge ipv6"} {
		t.Run(missing, func(t *testing.T) {
			n := newNode(t)
			n.inside(func(c *rtnl.Conn) error {
				err := errors.Join(Close(c, one, guest, "10.0.0.2"), Close(c, other, guest, ""))
				for _, chain := range chains {
					n.nft("flush chain bridge tapbridge " + chain)
				}
				n.nft("delete " + missing)
				return errors.Join(err, Remove(c, other), Remove(c, one))
			})
			if left := n.nft("list ruleset"); left != "" {
				t.Errorf("left is %s", left)
			}
		})
	}
}

// Nobody who is killed can leave the table without a port: it comes with the first
// and goes with the last, each in one transaction, at which the kernel counts one
// generation more.
func TestTableComesAndGoesAtOnce(t *testing.T) {
	n := newNode(t)
	n.inside(func(c *rtnl.Conn) error {
		generation := func() uint32 {
			g, err := nft.Generation(namespace(c))
			if err != nil {
				t.Fatal(err)
			}
			return binary.BigEndian.Uint32(g)
		}
		before := generation()
		err := Close(c, one, guest, "")
		closed := generation()
		err = errors.Join(err, Admit(c, one, guest, "10.0.0.2 fd00::2"), Remove(c, one))
		if removed := generation(); closed != before+1 || removed != closed+2 {
			t.Errorf("generations are %d, %d with the port, %d without", before, closed, removed)
		}
		return err
	})
	if left := n.nft("list ruleset"); left != "" {
		t.Errorf("left is %s", left)
	}
}

// What somebody else has put into the table keeps it, and what somebody puts there
// while the last port goes.
func TestRemoveSparesOthers(t *testing.T) {
	for _, foreign := range []string{"add chain bridge tapbridge theirs", "add set bridge tapbridge theirs { type ipv4_addr; }", "add element bridge tapbridge ipv4 { " + other + " . 10.0.0.9 }"} {
		t.Run(foreign, func(t *testing.T) {
			n := newNode(t)
			n.inside(func(c *rtnl.Conn) error {
				err := Close(c, one, guest, "")
				n.nft(foreign)
				return errors.Join(err, Remove(c, one), n.want(c, Observed{}))
			})
			n.nft("delete " + strings.TrimPrefix(strings.TrimSuffix(foreign, " { type ipv4_addr; }"), "add "))
		})
	}
	t.Run("meanwhile", func(t *testing.T) {
		n := newNode(t)
		n.inside(func(c *rtnl.Conn) error {
			err := Close(c, one, guest, "")
			generation, generationErr := nft.Generation(namespace(c))
			err = errors.Join(err, generationErr, Close(c, other, guest, ""))
			if err := nft.CommitSince(namespace(c), generation, undefine()...); !errors.Is(err, unix.ERESTART) {
				t.Errorf("removed with another port in it: %v", err)
			}
			return errors.Join(err, n.want(c, Observed{one: Of(guest), other: Of(guest)}))
		})
	})
}

func TestPossibleChangesNothing(t *testing.T) {
	n := newNode(t)
	n.inside(Possible)
	if left := n.nft("list ruleset"); left != "" {
		t.Errorf("left is %s", left)
	}
}

// The tables of others stay, also one of our name in another family.
func TestOthersTablesStay(t *testing.T) {
	n := newNode(t)
	n.nft("add table inet tapbridge")
	n.nft("add table bridge filter")
	before := n.nft("list ruleset")
	n.inside(func(c *rtnl.Conn) error { return errors.Join(Close(c, one, guest, ""), Remove(c, one)) })
	if after := n.nft("list ruleset"); after != before {
		t.Errorf("ruleset %s, was %s", after, before)
	}
}
