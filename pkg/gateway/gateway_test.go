package gateway

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nft"
	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// node is a network namespace with a bridge br0.
type node struct {
	*testing.T
	*nstest.NS
}

func newNode(t *testing.T) node {
	t.Helper()
	t.Parallel()
	n := node{t, nstest.New(t)}
	nstest.Bridge(t, n.NS, "br0", "02:00:00:00:00:01")
	return n
}

func (n node) sh(lines string) {
	n.Helper()
	n.NS.Run(n.T, "sh", "-ec", lines)
}

// inside calls f in the node, as the plugin would.
func (n node) inside(f func(c *rtnl.Conn, d Device)) {
	n.Helper()
	n.Do(func() {
		c, err := rtnl.Open()
		if err != nil {
			n.Fatal(err)
		}
		defer c.Close()
		l, err := c.LinkNamed("br0")
		if err != nil {
			n.Fatal(err)
		}
		f(c, Device{Name: "br0", Index: l.Index, Ours: true})
	})
}

func (n node) wantWorld(before, when string) {
	n.Helper()
	if diff := nstest.Diff(before, nstest.World(n.NS)); diff != "" {
		n.Errorf("%s (-before +after):\n%s", when, diff)
	}
}

func prefixes(list string) (all []netip.Prefix) {
	for _, p := range strings.Fields(list) {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func texts(list []netip.Prefix) string {
	var all []string
	for _, p := range list {
		all = append(all, p.String())
	}
	return strings.Join(all, " ")
}

// Assign gives the bridge what it lacks, and its Undo takes exactly that back.
func TestAssign(t *testing.T) {
	for name, c := range map[string]struct {
		before                   string // commands
		want                     string
		stranger, replace, alone bool
		lacks                    string // afterwards
		says                     string // in the error; "": none
	}{
		"nothing there":           {want: "10.0.0.1/24 fd00::1/64"},
		"two of one family":       {want: "10.0.0.1/24 10.1.0.1/24"},
		"there already":           {before: "ip addr add 10.0.0.1/24 dev br0", want: "10.0.0.1/24"},
		"one of two":              {before: "ip addr add 10.0.0.1/24 dev br0", want: "10.0.0.1/24 fd00::1/64"},
		"another prefix":          {before: "ip addr add 10.0.0.1/16 dev br0", want: "10.0.0.1/24", lacks: "10.0.0.1/24", says: "ip addr del 10.0.0.1/16 dev br0"},
		"another subnet":          {before: "ip addr add 10.9.0.1/24 dev br0", want: "10.0.0.1/24", lacks: "10.0.0.1/24", says: "ip addr del 10.9.0.1/24 dev br0"},
		"another IPv6 subnet":     {before: ipv6On + "ip addr add fd09::1/64 dev br0 nodad", want: "fd00::1/64"},
		"the same IPv6 subnet":    {before: ipv6On + "ip addr add fd00::9/64 dev br0 nodad", want: "fd00::1/64", lacks: "fd00::1/64", says: "fd00::9/64"},
		"replace":                 {before: "ip addr add 10.9.0.1/24 brd + dev br0; ip addr add 10.9.0.2/24 dev br0; ip addr add 10.8.0.1/16 dev br0", want: "10.0.0.1/24", replace: true},
		"replace the primary":     {before: "ip addr add 10.0.0.9/24 dev br0; ip addr add 10.0.0.1/24 dev br0", want: "10.0.0.1/24 10.1.0.1/24", replace: true},
		"replace IPv6":            {before: ipv6On + "ip addr add fd00::9/64 dev br0 nodad; ip addr add fd09::9/64 dev br0 nodad", want: "fd00::1/64", replace: true},
		"a stranger's":            {stranger: true, want: "10.0.0.1/24 fd00::1/64", lacks: "10.0.0.1/24 fd00::1/64", says: "ip addr add 10.0.0.1/24 dev br0 && ip addr add fd00::1/64 dev br0"},
		"a stranger's with force": {stranger: true, replace: true, before: "ip addr add 10.9.0.1/24 dev br0", want: "10.0.0.1/24", lacks: "10.0.0.1/24", says: "not made by tapbridge: ip addr add 10.0.0.1/24 dev br0"},
		"a stranger's that has":   {stranger: true, before: "ip addr add 10.0.0.1/24 dev br0", want: "10.0.0.1/24"},
		"not asked to":            {alone: true, want: "10.0.0.1/24", lacks: "10.0.0.1/24", says: "isGateway"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.sh(c.before)
			before := nstest.World(n.NS)
			n.inside(func(conn *rtnl.Conn, d Device) {
				d.Ours = !c.stranger
				w := Wish{Addresses: prefixes(c.want), Assign: !c.alone, Replace: c.replace}
				var undo Undo
				err := Assign(conn, d, w, &undo)
				if (err != nil) != (c.says != "") || err != nil && !(errors.Is(err, ErrAddress) && strings.Contains(err.Error(), c.says)) {
					t.Errorf("%v, want %q", err, c.says)
				}
				if lacks, err := Missing(conn, d, w); err != nil || texts(lacks) != c.lacks {
					t.Errorf("missing are %q, want %q, %v", texts(lacks), c.lacks, err)
				}
				if err := undo.Run(); err != nil {
					t.Error(err)
				}
			})
			n.wantWorld(before, "after Undo")
		})
	}
}

const ipv6On = "sysctl -qw net.ipv6.conf.br0.disable_ipv6=0; "

// The gateway is reachable at once: nobody can keep it from its address.
func TestAssignWithoutDAD(t *testing.T) {
	n := newNode(t)
	n.inside(func(conn *rtnl.Conn, d Device) {
		if err := Assign(conn, d, Wish{Addresses: prefixes("fd00::1/64"), Assign: true}, new(Undo)); err != nil {
			t.Fatal(err)
		}
	})
	if got := n.NS.Run(t, "ip", "-o", "addr", "show", "dev", "br0", "to", "fd00::/64"); !strings.Contains(got, "nodad") || strings.Contains(got, "tentative") {
		t.Errorf("the address is %s", got)
	}
	n.must(func() error {
		ra, err := read(ipv6 + "conf/br0/accept_ra")
		if ra != "0" {
			t.Errorf("accept_ra is %s", ra)
		}
		return err
	})
}

// Forward touches only the families in use, and its Undo what the kernel has
// changed on the way.
func TestForward(t *testing.T) {
	for name, c := range map[string]struct {
		before, want string
		alone        bool
		v4, v6       string // afterwards
		says         string
	}{
		"IPv4":                  {want: "10.0.0.1/24", v4: "1", v6: "0"},
		"IPv6":                  {want: "fd00::1/64", v4: "0", v6: "1"},
		"both":                  {want: "10.0.0.1/24 fd00::1/64", v4: "1", v6: "1"},
		"on already":            {before: "sysctl -qw net.ipv4.ip_forward=1", want: "10.0.0.1/24", v4: "1", v6: "0"},
		"not asked to":          {want: "10.0.0.1/24 fd00::1/64", alone: true, v4: "0", v6: "0"},
		"some devices":          {before: "sysctl -qw net.ipv4.conf.br0.forwarding=1; sysctl -qw net.ipv6.conf.br0.forwarding=1", want: "10.0.0.1/24 fd00::1/64", v4: "1", v6: "1"},
		"redirects are refused": {before: "sysctl -qw net.ipv4.conf.all.accept_redirects=0", want: "10.0.0.1/24", v4: "1", v6: "0"},
		"route from a router":   {before: ipv6On + "ip -6 route add default dev br0 proto ra", want: "10.0.0.1/24 fd00::1/64", v4: "1", v6: "0", says: "accept_ra=2"},
		"route that stays":      {before: ipv6On + "sysctl -qw net.ipv6.conf.br0.accept_ra=2; ip -6 route add default dev br0 proto ra", want: "fd00::1/64", v4: "0", v6: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.sh(c.before)
			before := nstest.World(n.NS)
			n.inside(func(conn *rtnl.Conn, _ Device) {
				w := Wish{Addresses: prefixes(c.want), Assign: !c.alone}
				var undo Undo
				err := Forward(conn, w, &undo)
				if (err != nil) != (c.says != "") || err != nil && !(errors.Is(err, ErrAddress) && strings.Contains(err.Error(), c.says)) {
					t.Errorf("%v, want %q", err, c.says)
				}
				if off, err := Forwards(w); err != nil || (off == "") != (c.says == "") {
					t.Errorf("off is %q, %v", off, err)
				}
				v4, _ := read(forward4)
				v6, _ := read(forward6)
				if v4 != c.v4 || v6 != c.v6 {
					t.Errorf("IPv4 %s, IPv6 %s, want %s, %s", v4, v6, c.v4, c.v6)
				}
				if err := undo.Run(); err != nil {
					t.Error(err)
				}
			})
			n.wantWorld(before, "after Undo")
		})
	}
}

// A device that goes while the node is made to forward, or before that is taken back,
// is no error; what is left is restored.
func TestForwardBesideADeviceThatGoes(t *testing.T) {
	n := newNode(t)
	n.sh("ip link add goes type veth peer name left; sysctl -qw net.ipv4.conf.br0.forwarding=1")
	n.inside(func(conn *rtnl.Conn, _ Device) {
		var files []string
		for _, device := range []string{"gone", "goes", "br0"} {
			files = append(files, ipv4+"conf/"+device+"/forwarding")
		}
		var undo Undo
		if err := remember(files, &undo); err != nil || len(undo) != 2 {
			t.Errorf("%d remembered, %v", len(undo), err)
		}
		goes, err := conn.LinkNamed("goes")
		if err != nil {
			t.Fatal(err)
		}
		n.sh("ip link del goes; sysctl -qw net.ipv4.conf.br0.forwarding=0")
		if err := undo.Run(); err != nil {
			t.Error(err)
		}
		if now, err := read(files[2]); now != "1" {
			t.Errorf("br0 is %q, %v", now, err)
		}
		if err := write(files[1], "1"); !errors.Is(err, fs.ErrNotExist) { // by when it went after the look of restore
			t.Error(err)
		}
		if err := keepsDefault(conn, goes.Index); err != nil {
			t.Error(err)
		}
	})
}

// What Assign and Forward have changed before they panic is undone, also when
// undoing the last of it panics as well.
func TestPanicIsUndone(t *testing.T) {
	for name, c := range map[string]struct {
		panics  func(conn *rtnl.Conn, d Device, undo *Undo) error
		changed []string // sysctls that are "1" or "0" by then, and were not
	}{
		"Assign": {func(conn *rtnl.Conn, d Device, undo *Undo) error {
			noPrefix := netip.PrefixFrom(netip.MustParseAddr("10.0.0.1"), 33) // the netlink library runs out of its mask
			return Assign(conn, d, Wish{Addresses: append(prefixes("10.9.0.1/24 fd00::1/64"), noPrefix), Assign: true, Replace: true}, undo)
		}, []string{ipv6 + "conf/br0/disable_ipv6 0", ipv6 + "conf/br0/accept_ra 0"}},
		"Forward": {func(_ *rtnl.Conn, _ Device, undo *Undo) error {
			return Forward(nil, Wish{Addresses: prefixes("10.0.0.1/24 fd00::1/64"), Assign: true}, undo)
		}, []string{forward4 + " 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.sh("ip addr add 10.8.0.1/24 dev br0")
			before := nstest.World(n.NS)
			n.inside(func(conn *rtnl.Conn, d Device) {
				var undo Undo
				caught(func() { t.Error("no panic", c.panics(conn, d, &undo)) })
				for _, want := range c.changed {
					file, value, _ := strings.Cut(want, " ")
					if now, err := read(file); now != value {
						t.Errorf("%s is %q by then, want %s: %v", file, now, value, err)
					}
				}
				caught(func() {
					if err := undo.Run(); err != nil {
						t.Error(err)
					}
				})
			})
			n.wantWorld(before, "after Undo")
		})
	}
}

func caught(f func()) {
	defer func() { _ = recover() }()
	f()
}

var (
	guests    = prefixes("10.0.0.2/24 fd00::2/64")
	mine      = Owner{Port: "tb000000000001", Network: "vms"}
	neighbour = Owner{Port: "tb000000000002", Network: "vms"}
)

func (n node) ruleset() string {
	n.Helper()
	return n.NS.Run(n.T, "nft", "list", "ruleset")
}

func (n node) masquerade(o Owner) {
	n.Helper()
	n.Do(func() {
		if err := Masquerade(o, guests); err != nil {
			n.Fatal(err)
		}
	})
}

func (n node) must(f func() error) {
	n.Helper()
	n.Do(func() {
		if err := f(); err != nil {
			n.Error(err)
		}
	})
}

// The rules are found without the network's name, and go without those of others;
// with the last goes the table.
func TestMasquerade(t *testing.T) {
	n := newNode(t)
	n.must(Masquerading)
	n.must(func() error { return Unmasquerade(mine) })
	if got := n.ruleset(); got != "" {
		t.Fatalf("asking has changed something: %s", got)
	}
	n.masquerade(neighbour)
	one := n.ruleset()
	n.masquerade(mine)
	n.masquerade(mine) // replaces its own
	n.must(func() error {
		lacking, err := Unmasked(mine, append(prefixes("10.0.0.3/24"), guests...))
		if texts(lacking) != "10.0.0.3/24" {
			t.Errorf("%q have no rule", texts(lacking))
		}
		return err
	})
	n.must(func() error { return Unmasquerade(Owner{Port: mine.Port}) })
	if got := n.ruleset(); got != one {
		t.Errorf("ruleset is %s, want %s", got, one)
	}
	n.must(func() error { return Unmasquerade(neighbour) })
	if got := n.ruleset(); got != "" {
		t.Errorf("left is %s", got)
	}
}

func TestUnmasqueradeOthers(t *testing.T) {
	long := strings.Repeat("l", 200)
	n := newNode(t)
	n.masquerade(mine)
	n.masquerade(Owner{Port: "tb000000000003", Network: long + "2"})
	before := n.ruleset()
	n.masquerade(neighbour)
	n.must(func() error { return UnmasqueradeOthers("other", nil) })
	if got := n.ruleset(); strings.Count(got, " masquerade ") != 6 {
		t.Errorf("ruleset is %s", got)
	}
	n.must(func() error { return UnmasqueradeOthers("vms", []Owner{mine}) })
	n.masquerade(Owner{Port: "tb000000000004", Network: long + "1"})
	n.must(func() error { return UnmasqueradeOthers(long+"1", nil) })
	if got := n.ruleset(); got != before {
		t.Errorf("ruleset is %s, want %s", got, before)
	}
}

// What nft makes of the rules is what they are meant to be.
func TestMasqueradeAsText(t *testing.T) {
	n := newNode(t)
	n.masquerade(mine)
	want := `table inet tapbridge {
	chain from_guests {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.0.0.2 ip daddr != 10.0.0.0/24 ip daddr != 224.0.0.0/4 masquerade comment "tb000000000001 10.0.0.2/24 vms 81d87ee2"
		ip6 saddr fd00::2 ip6 daddr != fd00::/64 ip6 daddr != ff00::/8 masquerade comment "tb000000000001 fd00::2/64 vms 3257cff8"
	}
}
`
	if diff := cmp.Diff(want, n.ruleset()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The table goes only when it is empty: what somebody has put there stays, rule,
// chain or set.
func TestTableOfOthersStays(t *testing.T) {
	for _, addition := range []string{
		"rule inet tapbridge from_guests ip saddr 10.5.0.1 masquerade",
		`rule inet tapbridge from_guests ip saddr 10.5.0.1 masquerade comment \"mine\"`,
		`rule inet tapbridge from_guests ip saddr 10.5.0.1 masquerade comment \"tb000000000001 mine vms 01234567\"`,
		"chain inet tapbridge mine",
		"set inet tapbridge mine { type ipv4_addr ; }",
	} {
		t.Run(addition, func(t *testing.T) {
			n := newNode(t)
			n.masquerade(mine)
			n.sh(`nft "add ` + addition + `"`)
			n.must(func() error { return Unmasquerade(mine) })
			if got := n.ruleset(); !strings.Contains(got, "mine") && !strings.Contains(got, "10.5.0.1") || strings.Contains(got, "10.0.0.2") {
				t.Errorf("ruleset is %s", got)
			}
		})
	}
}

// The kernel itself refuses: nothing that comes between looking and removing is
// lost.
func TestTableInUseIsNotRemoved(t *testing.T) {
	n := newNode(t)
	n.masquerade(mine)
	before := n.ruleset()
	n.must(func() error {
		if err := nft.Commit(netns.None(), emptyTable()...); !errors.Is(err, unix.EBUSY) {
			t.Errorf("removing it: %v, want EBUSY", err)
		}
		return nil
	})
	if got := n.ruleset(); got != before {
		t.Errorf("ruleset is %s, want %s", got, before)
	}
}
