package address

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// pod has one end of a veth pair, net1, whose other end is up in another namespace.
type pod struct {
	*testing.T
	*nstest.NS
	conn *rtnl.Conn
}

func newPod(t *testing.T) pod {
	t.Helper()
	t.Parallel()
	p, far := pod{T: t, NS: nstest.New(t)}, nstest.New(t)
	nstest.Veth(t, p.NS, "net1", far, "far")
	p.sh("echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6; ip link set lo up")
	var err error
	if p.conn, err = rtnl.OpenAt(p.Path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.conn.Close)
	return p
}

func (p pod) sh(line string) string {
	p.Helper()
	return p.NS.Run(p.T, "sh", "-ec", line)
}

func (p pod) missing(w Wish) []string {
	p.Helper()
	differences, err := Missing(p.conn, "net1", w)
	if err != nil {
		p.Error(err)
	}
	return differences
}

func addresses(list string) (all []netip.Prefix) {
	for _, word := range strings.Fields(list) {
		all = append(all, netip.MustParsePrefix(word))
	}
	return all
}

func route(to, via string) Route {
	r := Route{To: netip.MustParsePrefix(to)}
	if via != "" {
		r.Via = netip.MustParseAddr(via)
	}
	return r
}

// everything is a wish with all that there can be in one.
func everything() Wish {
	special := route("10.9.0.0/16", "10.0.0.7")
	special.MTU, special.AdvMSS, special.Priority = 1300, 1200, 77
	table := route("10.8.0.0/16", "10.0.0.7")
	table.Table = 100
	onLink := route("10.7.0.0/16", "")
	onLink.Scope = unix.RT_SCOPE_LINK
	return Wish{
		Addresses: addresses("10.0.0.2/24 10.1.0.2/24 fd00::2/64"),
		Routes: []Route{
			route("0.0.0.0/0", "10.0.0.1"), special, table, onLink,
			route("::/0", "fd00::1"), route("fd09::5/64", "fd00::1"), route("fd09::/64", "fd00::9"), route("fd07::/64", ""),
		},
		Gateway6: netip.MustParseAddr("fd00::1"),
	}
}

// Configure makes what Missing looks for, as iproute2 sees it as well.
func TestConfigure(t *testing.T) {
	p := newPod(t)
	w := everything()
	if got := p.missing(w); len(got) != 2*len(w.Addresses)+len(w.Routes) { // each address has a route
		t.Errorf("before, %q are missing", got)
	}
	if err := Configure(p.conn, "net1", w); err != nil {
		t.Fatal(err)
	}
	if got := p.missing(w); len(got) > 0 {
		t.Errorf("afterwards, %q are missing", got)
	}
	const conf = "/proc/sys/net/ipv6/conf/net1/"
	for command, want := range map[string][]string{
		"ip -o addr show dev net1":              {"10.0.0.2/24", "10.1.0.2/24", "fd00::2/64"},
		"ip -4 route":                           {"default via 10.0.0.1 dev net1", "10.9.0.0/16 via 10.0.0.7 dev net1 metric 77 mtu 1300 advmss 1200", "10.7.0.0/16 dev net1 scope link"},
		"ip -4 route show table 100":            {"10.8.0.0/16 via 10.0.0.7 dev net1"},
		"ip -6 route":                           {"default via fd00::1 dev net1", "via fd00::9 dev net1", "fd07::/64 via fd00::1 dev net1"},
		"ip -o addr show dev lo":                {"::1/128"},
		"cat " + conf + "keep_addr_on_down":     {"1"},
		"ip -o -6 addr show dev net1 tentative": nil,
	} {
		got := p.sh(command)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s shows no %q:\n%s", command, w, got)
			}
		}
		if want == nil && got != "" {
			t.Errorf("%s shows\n%s", command, got)
		}
	}
}

// Whatever is taken away is named, and nothing else.
func TestMissing(t *testing.T) {
	p := newPod(t)
	w := everything()
	if err := Configure(p.conn, "net1", w); err != nil {
		t.Fatal(err)
	}
	p.sh("ip route add 172.16.0.0/12 dev net1") // what is there as well is no difference
	for _, c := range []struct{ damage, want string }{
		{"ip route replace fd07::/64 dev net1; ip addr add 10.1.0.3/24 dev net1", ""}, // who has changed a route without a gateway
		{"ip addr del 10.1.0.2/24 dev net1", `address 10.1.0.2/24 is missing on "net1"`},
		{"ip addr add 10.1.0.2/16 dev net1", `address 10.1.0.2/24 is missing on "net1"`},
		{"ip route del 10.9.0.0/16", "route 10.9.0.0/16 via 10.0.0.7 is missing"},
		{"ip route del 10.8.0.0/16 table 100", "route 10.8.0.0/16 via 10.0.0.7 table 100 is missing"},
		{"ip route replace default via 10.0.0.9", "route 0.0.0.0/0 via 10.0.0.1 is missing"},
		{"ip -6 route del fd09::/64 via fd00::1", "route fd09::5/64 via fd00::1 is missing"},
		{"ip route del 10.0.0.0/24", "route 10.0.0.0/24 is missing"},
	} {
		p.sh(c.damage)
		if got := p.missing(w); c.want == "" && len(got) > 0 || c.want != "" && !slices.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.damage, got, c.want)
		}
	}
	if got := p.missing(w); len(got) != 7 {
		t.Errorf("in the end %q are missing", got)
	}
}

func TestRefusals(t *testing.T) {
	p := newPod(t)
	if err := Configure(p.conn, "net9", Wish{}); !rtnl.IsNotExist(err) {
		t.Errorf("no interface: %v", err)
	}
	if _, err := Missing(p.conn, "net9", Wish{}); !rtnl.IsNotExist(err) {
		t.Errorf("no interface: %v", err)
	}
	p.sh("ip addr add 10.0.0.2/24 dev net1")
	if err := Configure(p.conn, "net1", Wish{Addresses: addresses("10.0.0.2/24")}); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "10.0.0.2/24") {
		t.Errorf("an address that is there: %v", err)
	}
	if err := Configure(p.conn, "net1", Wish{Routes: []Route{route("10.9.0.0/16", "192.0.2.1")}}); err == nil || !strings.Contains(err.Error(), "10.9.0.0/16 via 192.0.2.1") {
		t.Errorf("a gateway that is not on the link: %v", err)
	}
}

// An address of IPv6 that somebody else has cannot be used, and is not waited for.
func TestDuplicate(t *testing.T) {
	t.Parallel()
	pod, far := nstest.New(t), nstest.New(t)
	nstest.Veth(t, pod, "net1", far, "far")
	far.Run(t, "sh", "-ec", "echo 0 >/proc/sys/net/ipv6/conf/far/disable_ipv6; ip addr add fd00::2/64 dev far nodad")
	c, err := rtnl.OpenAt(pod.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = Configure(c, "net1", Wish{Addresses: addresses("fd00::2/64"), Gateway6: netip.MustParseAddr("fd00::1")})
	if err == nil || !strings.Contains(err.Error(), "somebody on the network has it") {
		t.Errorf("%v", err)
	}
}
