package conformance

import (
	"encoding/json"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// dual is a delegate's answer with an address in each family.
func dual(members ...string) behaviour {
	ips := `"ips":[{"address":"10.9.0.2/24"},{"address":"fd09::2/64"}]`
	return behaviour{Stdout: "{" + strings.Join(append([]string{`"cniVersion":"1.1.0"`, ips}, members...), ",") + "}"}
}

var (
	router  = newBridge.with(recording, conf{"isGateway": true})
	masq    = router.with(conf{"isDefaultGateway": true, "ipMasq": true})
	onAdmin = recording.with(conf{"isGateway": true, "ipMasq": true})
)

// lease is the routing part of a result.
type lease struct {
	IPs    []struct{ Address, Gateway string }
	Routes []struct{ Dst, GW string }
}

func (a answer) lease() (l lease) {
	a.t.Helper()
	a.ok().decode(&l)
	return l
}

// addresses are those of a device of the node, but for link-local ones.
func (n *node) addresses(device string) (all []string) {
	n.t.Helper()
	for _, word := range strings.Fields(n.host.Run(n.t, "ip", "-o", "addr", "show", "dev", device)) {
		if p, err := netip.ParsePrefix(word); err == nil && !p.Addr().IsLinkLocalUnicast() {
			all = append(all, word)
		}
	}
	slices.Sort(all)
	return all
}

// describe is all that the world says of one link.
func (n *node) describe(link string) (lines string) {
	n.t.Helper()
	for line := range strings.Lines(n.world()) {
		if strings.HasPrefix(line, "0 link "+link+" ") {
			lines += line
		}
	}
	return lines
}

func (n *node) wantAddresses(device string, want ...string) {
	n.t.Helper()
	if got := n.addresses(device); !slices.Equal(got, want) {
		n.t.Errorf("%s has %q, want %q", device, got, want)
	}
}

func (n *node) sysctl(file string) string {
	n.t.Helper()
	return strings.TrimSpace(n.host.Run(n.t, "cat", "/proc/sys/net/"+file))
}

// rules are the masquerade rules of the node.
func (n *node) rules() (all []string) {
	n.t.Helper()
	for line := range strings.Lines(n.host.Run(n.t, "nft", "list", "ruleset")) {
		if strings.Contains(line, " masquerade") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

func (n *node) noTable() {
	n.t.Helper()
	if got := n.host.Run(n.t, "nft", "list", "ruleset"); got != "" {
		n.t.Errorf("left in nftables: %s", got)
	}
}

// outside is a machine beyond the node that knows no way back to the guests.
func (n *node) outside() *nstest.NS {
	n.t.Helper()
	out := nstest.New(n.t)
	n.host.Run(n.t, "ip", "link", "add", "wan", "type", "veth", "peer", "name", "eth0", "netns", out.Path)
	for ns, lines := range map[*nstest.NS]string{
		n.host: "ip addr add 192.0.2.1/24 dev wan; ip addr add 2001:db8::1/64 dev wan nodad; ip link set wan up",
		out:    "ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad; ip link set eth0 up",
	} {
		ns.Run(n.t, "sh", "-ec", lines)
	}
	return out
}

// reaches sends a datagram from one namespace to an address in another, until it
// is heard and answered, and returns whom the other has seen; "" for nobody.
func reaches(t *testing.T, from, to *nstest.NS, address string) (seen string) {
	t.Helper()
	var server net.PacketConn
	var client net.Conn
	var err error
	to.Do(func() { server, err = net.ListenPacket("udp", net.JoinHostPort(address, "7")) })
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	from.Do(func() { client, err = net.Dial("udp", net.JoinHostPort(address, "7")) })
	if err != nil {
		return ""
	}
	defer client.Close()
	for range 30 { // the first may be lost to duplicate address detection
		_, _ = client.Write([]byte("x"))
		buf := make([]byte, 1)
		_ = server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, peer, err := server.ReadFrom(buf); err == nil {
			seen, _, _ = net.SplitHostPort(peer.String())
			_, _ = server.WriteTo(buf, peer)
		}
		_ = client.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := client.Read(buf); err == nil {
			return seen
		}
	}
	return ""
}

// A pod reaches the outside through the bridge, in both families, and the outside
// sees the node. The created bridge stays, with its addresses; the rules do not.
func TestGatewayReachesOutside(t *testing.T) {
	t.Parallel()
	n := newNode(t, conf{"mode": "veth"}, libvirt)
	out := n.outside()
	n.ipam.on("ADD", dual())
	c := n.conf(masq)
	added := n.call("ADD", c)
	want := lease{
		IPs:    []struct{ Address, Gateway string }{{"10.9.0.2/24", "10.9.0.1"}, {"fd09::2/64", "fd09::1"}},
		Routes: []struct{ Dst, GW string }{{"0.0.0.0/0", "10.9.0.1"}, {"::/0", "fd09::1"}},
	}
	if diff := cmp.Diff(want, added.lease()); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	for address, node := range map[string]string{"192.0.2.2": "192.0.2.1", "2001:db8::2": "2001:db8::1"} {
		if got := reaches(t, n.pod, out, address); got != node {
			t.Errorf("%s sees %q, want %q", address, got, node)
		}
	}
	n.wantAddresses("br1", "10.9.0.1/24", "fd09::1/64")
	if ra := n.sysctl("ipv6/conf/br1/accept_ra"); ra != "0" {
		t.Errorf("the bridge listens to routers: accept_ra is %s", ra)
	}
	n.call("STATUS", c).silent()
	n.call("CHECK", n.conf(masq, added.prev())).silent()
	n.call("DEL", n.conf(masq, added.prev())).silent()
	n.wantAddresses("br1", "10.9.0.1/24", "fd09::1/64")
	n.noTable()
	n.call("ADD", c).ok() // finds the bridge as it has left it
	n.call("DEL", c).silent()
}

// Where the guest has its own address, the bridge is its gateway as well; with
// only IPv4 it stays without IPv6.
func TestGatewayInEveryMode(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		added := n.call("ADD", n.conf(masq))
		want := lease{IPs: []struct{ Address, Gateway string }{{"10.9.0.2/24", "10.9.0.1"}}, Routes: []struct{ Dst, GW string }{{"0.0.0.0/0", "10.9.0.1"}}}
		if diff := cmp.Diff(want, added.lease()); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
		n.wantAddresses("br1", "10.9.0.1/24")
		if n.sysctl("ipv4/ip_forward") != "1" || n.sysctl("ipv6/conf/all/forwarding") != "0" || n.sysctl("ipv6/conf/br1/disable_ipv6") != "1" {
			t.Error("want forwarding of IPv4 alone, and a bridge without IPv6")
		}
		n.call("CHECK", n.conf(masq, added.prev())).silent()
		n.call("DEL", conf{"name": "lan", "type": "tapbridge"}).silent() // as Multus reduces it
		n.noTable()
	})
}

// vmconf wants a gateway, which isGateway gives.
func TestGatewayWithVMConf(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := masq.with(conf{"vmconf": true})
	added := n.call("ADD", n.conf(c)).ok()
	if len(n.rules()) != 1 {
		t.Errorf("rules: %q", n.rules())
	}
	n.call("CHECK", n.conf(c, added.prev())).silent()
	n.call("DEL", n.conf(c)).silent()
	n.noTable()
}

// The delegate's own gateway and default route stand.
func TestGatewayOfTheDelegate(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ipam.on("ADD", behaviour{Stdout: `{"cniVersion":"1.1.0","ips":[{"address":"10.9.0.2/24","gateway":"10.9.0.254"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.9.0.9"}]}`})
	got := n.call("ADD", n.conf(router, conf{"isDefaultGateway": true})).lease()
	want := lease{IPs: []struct{ Address, Gateway string }{{"10.9.0.2/24", "10.9.0.254"}}, Routes: []struct{ Dst, GW string }{{"0.0.0.0/0", "10.9.0.9"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	n.wantAddresses("br1", "10.9.0.254/24")
}

// A bridge that tapbridge did not make stays byte for byte: with the address all
// is well, without it ADD says which command is missing.
func TestGatewayOnAnAdminsBridge(t *testing.T) {
	t.Parallel()
	n := newNode(t, conf{"mode": "veth"}, libvirt)
	n.unchanged(func() { // nothing is asked of the delegate when it is clear before
		n.call("ADD", n.conf(onAdmin)).fails(7, "br0", "ip addr add")
		n.call("STATUS", n.conf(onAdmin)).fails(50, "br0", "ip addr add")
		n.call("ADD", n.conf(recording, conf{"ipMasq": true})).fails(7, "br0", "ip addr add")
	})
	if verbs := n.ipam.verbs(); len(verbs) != 0 {
		t.Errorf("the delegate was called: %q", verbs)
	}
	n.host.Run(t, "ip", "addr", "add", "10.8.0.1/24", "dev", "br0")
	n.unchanged(func() {
		for _, force := range []bool{false, true} {
			n.call("ADD", n.conf(onAdmin, conf{"forceAddress": force})).fails(7, "br0", "ip addr add 10.9.0.1/24 dev br0")
			n.noTable()
		}
		n.call("ADD", n.conf(recording, conf{"ipMasq": true})).fails(7, "ip addr add 10.9.0.1/24 dev br0")
	})
	out := n.outside()
	n.host.Run(t, "ip", "addr", "add", "10.9.0.1/24", "dev", "br0")
	before := n.describe("br0")
	n.call("STATUS", n.conf(onAdmin)).silent()
	c := n.conf(onAdmin, conf{"isDefaultGateway": true})
	added := n.call("ADD", c).ok()
	if got := reaches(t, n.pod, out, "192.0.2.2"); got != "192.0.2.1" {
		t.Errorf("the outside sees %q", got)
	}
	n.call("CHECK", c.with(added.prev())).silent()
	n.call("DEL", c).silent()
	n.noTable()
	if diff := nstest.Diff(before, n.describe("br0")); diff != "" || before == "" {
		t.Errorf("the bridge is another (-before +after):\n%s", diff)
	}
	// ipMasq alone leaves the node's forwarding to the admin.
	n.host.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=0")
	n.call("ADD", n.conf(recording, conf{"ipMasq": true})).ok()
	if len(n.rules()) != 1 || n.sysctl("ipv4/ip_forward") != "0" {
		t.Errorf("rules %q, forwarding %s", n.rules(), n.sysctl("ipv4/ip_forward"))
	}
	n.call("DEL", n.conf()).silent() // by a configuration that has changed since
	n.noTable()
}

// An address that is in the way is replaced only when asked, and comes back when
// ADD fails; of IPv6, another subnet is not in the way.
func TestGatewayForceAddress(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ipam.on("ADD", dual())
	n.call("ADD", n.conf(router)).ok()
	n.call("DEL", n.conf(router)).silent()
	n.host.Run(t, "ip", "addr", "add", "10.9.0.77/24", "dev", "br1") // a secondary address
	n.ipam.on("ADD", behaviour{Stdout: `{"cniVersion":"1.1.0","ips":[{"address":"10.7.0.2/24"},{"address":"fd07::2/64"}]}`})
	n.unchanged(func() {
		n.call("ADD", n.conf(router)).fails(7, "10.9.0.1/24", "10.7.0.1/24", "forceAddress")
	})
	force := router.with(conf{"forceAddress": true})
	n.unchanged(func() { n.strike(fault{full: true, conf: force}) })
	n.call("ADD", n.conf(force)).ok()
	n.wantAddresses("br1", "10.7.0.1/24", "fd07::1/64", "fd09::1/64")
	n.call("DEL", n.conf(force)).silent()
}

// CHECK names what is missing of the gateway.
func TestGatewayDrift(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ipam.on("ADD", dual())
	damages := map[string][]string{
		"ip addr del 10.9.0.1/24 dev br1":                                 {"10.9.0.1/24", "br1"},
		"ip addr del fd09::1/64 dev br1":                                  {"fd09::1/64", "br1"},
		"nft flush ruleset":                                               {"10.9.0.2", "fd09::2"},
		"nft flush chain inet tapbridge from_guests":                      {"masquerade rule of fd09::2 is missing"},
		"sysctl -qw net.ipv4.ip_forward=0":                                {"ip_forward"},
		"sysctl -qw net.ipv6.conf.all.forwarding=0":                       {"ipv6/conf/all/forwarding"},
		"ip addr del 10.9.0.1/24 dev br1\nip addr del fd09::1/64 dev br1": {"10.9.0.1/24", "fd09::1/64"},
	}
	for _, damage := range slices.Sorted(maps.Keys(damages)) { // who flushes rules leaves the table: it goes with later ones
		words := damages[damage]
		c := n.conf(masq)
		added := n.call("ADD", c).ok()
		n.call("CHECK", c.with(added.prev())).silent()
		n.sh(n.host, nil, damage)
		n.unchanged(func() { n.call("CHECK", c.with(added.prev())).fails(100, words...) })
		n.call("DEL", c).silent()
	}
	n.noTable()
}

// Others' rules in the same table stay, and so does the table then.
func TestGatewayLeavesOthersRules(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.call("ADD", n.conf(masq), env{"CNI_CONTAINERID": "neighbour", "CNI_IFNAME": "net9"}).ok()
	neighbour := n.rules()
	if len(neighbour) != 1 {
		t.Fatalf("rules: %q", neighbour)
	}
	n.ipam.on("ADD", gives("10.9.0.3/24"))
	n.call("ADD", n.conf(masq)).ok()
	n.call("DEL", n.conf(masq)).silent()
	if diff := cmp.Diff(neighbour, n.rules()); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	// Neither a DEL of nobody nor a GC in which it is valid touches it; nor does that of another network.
	n.call("DEL", n.conf(masq)).silent()
	n.call("GC", n.conf(masq, conf{validKey: valid("neighbour", "net9")})).silent()
	n.call("GC", n.conf(masq, conf{validKey: valid(), "name": "other"})).silent()
	if diff := cmp.Diff(neighbour, n.rules()); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	n.call("GC", n.conf(conf{validKey: valid()})).silent() // by now without ipMasq
	n.noTable()
}

// Port and namespace can go before DEL, and before GC; the rules are found.
func TestGatewayAfterTheNamespace(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	long := env{"CNI_CONTAINERID": strings.Repeat("c", 200)}
	for _, verb := range []string{"DEL", "GC"} {
		t.Run(verb, func(t *testing.T) {
			pod := nstest.New(t)
			r := n.call("ADD", n.conf(masq), env{"CNI_NETNS": pod.Path}, long).result()
			n.sh(n.host, r, "ip link del PORT")
			if len(n.rules()) != 1 {
				t.Fatalf("rules: %q", n.rules())
			}
			if verb == "DEL" {
				n.call("DEL", conf{"name": "lan", "type": "tapbridge"}, env{"CNI_NETNS": ""}, long).silent()
			} else {
				n.call("GC", n.conf(conf{validKey: valid()})).silent()
			}
			n.noTable()
		})
	}
}

// The mark of a created bridge is nobody's attachment.
func TestGatewayMarkOfTheBridge(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	made("true")(n)
	var links []struct{ IfAlias string }
	if err := json.Unmarshal([]byte(n.host.Run(t, "ip", "-j", "link", "show", "br1")), &links); err != nil || links[0].IfAlias == "" {
		t.Fatalf("%v, %v", links, err)
	}
	n.unchanged(func() { n.call("GC", n.conf(conf{validKey: valid()})).silent() })
	if out, err := n.host.Command(tapbridge, "ports").CombinedOutput(); err != nil || strings.Contains(string(out), "br1") {
		t.Errorf("ports: %v: %s", err, out)
	}
	n.host.Run(t, "ip", "link", "set", "br1", "alias", "") // an admin takes the bridge over
	n.unchanged(func() { n.call("ADD", n.conf(router)).fails(7, "ip addr add") })
}
