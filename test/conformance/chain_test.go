package conformance

import (
	"encoding/json"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/firecracker-microvm/firecracker-go-sdk/cni/vmconf"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// chain is the plugins of one network list, called as libcni does.
type chain struct {
	*node
	plugins []conf
	args    string // CNI_ARGS, the same for all
	result  answer // of the last plugin's ADD
}

func (n *node) chain(plugins ...conf) *chain { return &chain{node: n, plugins: plugins} }

// call executes one plugin of the chain, whatever its type.
func (c *chain) call(verb string, plugin conf) answer {
	c.t.Helper()
	if c.result.stdout != "" {
		plugin = plugin.with(c.result.prev())
	}
	caller := c.prepare(verb, plugin.with(conf{"cniVersion": newest, "name": "lan"}), env{"CNI_ARGS": c.args})
	caller.command = []string{filepath.Join(pluginDir, plugin["type"].(string))}
	return caller.run()
}

func (c *chain) add() {
	c.t.Helper()
	for _, p := range c.plugins {
		c.result = c.call("ADD", p).ok()
	}
}

func (c *chain) check() {
	c.t.Helper()
	for _, p := range c.plugins {
		c.call("CHECK", p).ok()
	}
}

func (c *chain) del() {
	c.t.Helper()
	for _, p := range slices.Backward(c.plugins) {
		c.call("DEL", p).ok()
	}
}

// passes demands that the chain works from end to end and leaves nothing.
func (c *chain) passes(during ...func()) {
	c.t.Helper()
	c.unchanged(func() {
		c.add()
		for _, f := range during {
			f()
		}
		c.check()
		c.del()
	})
}

// Behind another plugin it works: one of ours with another interface of the same
// pod, and one whose interface is elsewhere.
func Test83BehindAnotherPlugin(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		first := n.call("ADD", n.conf(recording, conf{"name": "first"}), env{"CNI_IFNAME": "eth0"}).ok()
		c := n.chain(n.conf(libvirt))
		c.result = first
		c.passes(func() {
			var r result
			if c.result.decode(&r); len(r.Interfaces) != 6 || r.nic().Name != "net1" || len(r.IPs) != 1 {
				t.Errorf("want the interfaces of both: %s", c.result.stdout)
			}
		})
		n.call("CHECK", n.conf(recording, conf{"name": "first"}, first.prev()), env{"CNI_IFNAME": "eth0"}).silent()
		foreign := n.conf(conf{"prevResult": json.RawMessage(before)})
		n.unchanged(func() {
			n.call("CHECK", n.conf(libvirt, n.call("ADD", foreign.with(libvirt)).ok().prev())).silent()
			n.call("DEL", foreign).silent()
		})
	})
}

// The reference plugins work behind it: tuning on CNI_IFNAME and bandwidth on the
// host's veth end, where there are such devices, portmap with the addresses.
// (firewall has no back end without iptables or firewalld.)
func Test84ReferencePluginsBehind(t *testing.T) {
	t.Run("tuning", func(t *testing.T) {
		inModes(t, veths, func(t *testing.T, n *node) {
			dir := filepath.Join(t.TempDir(), "tuning")
			n.chain(n.conf(libvirt), conf{"type": "tuning", "dataDir": dir, "sysctl": conf{"net.ipv4.conf.IFNAME.arp_filter": "1"}}).passes()
			n.chain(n.conf(libvirt), conf{"type": "tuning", "dataDir": dir, "txQLen": 500, "promisc": true}).passes()
		})
	})
	t.Run("bandwidth", func(t *testing.T) {
		limit := conf{"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 8000000, "egressBurst": 800000}
		inModes(t, veths, func(t *testing.T, n *node) {
			c := n.chain(n.conf(libvirt, recording), limit)
			c.passes(func() {
				var r result
				c.result.decode(&r)
				port := r.Interfaces[1].Name
				if qdiscs := n.host.Run(t, "tc", "qdisc", "show", "dev", port); !strings.Contains(qdiscs, "tbf") || !strings.Contains(qdiscs, "ingress") {
					t.Errorf("the port %q is not limited: %s", port, qdiscs)
				}
			})
		})
	})
	t.Run("portmap", func(t *testing.T) {
		tool(t, "nft", "nftables", "list", "ruleset")
		eachMode(t, func(t *testing.T, n *node) {
			ports := conf{
				"type": "portmap", "backend": "nftables", "snat": true,
				"runtimeConfig": conf{"portMappings": []conf{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}},
			}
			c := n.chain(n.conf(recording), ports)
			c.passes(func() { n.forwards(n.host, "10.9.0.2:80") })
		})
	})
}

// tc-redirect-tap works behind it in mode veth, as Firecracker's users chain it:
// the SDK reads its result, and the frames of the guest on its tap pass, with the
// port's rules.
func Test84TCRedirectTapBehind(t *testing.T) {
	t.Parallel()
	n := newNode(t, conf{"mode": "veth", "mac": guestMAC, "macspoofchk": true}, libvirt)
	leases := t.TempDir()
	hostLocal := conf{"ipam": conf{"type": "host-local", "dataDir": leases, "subnet": "10.1.1.0/24", "gateway": "10.1.1.1"}}
	c := n.chain(n.conf(hostLocal), conf{"type": "tc-redirect-tap"})
	c.args = "IgnoreUnknown=1;TC_REDIRECT_TAP_NAME=vm0;TC_REDIRECT_TAP_UID=107;TC_REDIRECT_TAP_GID=107"
	c.passes(func() {
		result := &types100.Result{}
		c.result.decode(result)
		got, err := vmconf.StaticNetworkConfFrom(result, "c1")
		if err != nil || got.TapName != "vm0" || got.VMMacAddr != guestMAC || got.NetNSPath != n.pod.Path {
			t.Errorf("the SDK reads %+v, %v from %s", got, err, c.result.stdout)
		}
		n.carries("vm0")
	})
	if left, err := filepath.Glob(filepath.Join(leases, "lan", "10.*")); err != nil || len(left) > 0 {
		t.Errorf("addresses are left: %q, %v", left, err)
	}
}

// carries demands that frames pass between the guest on a tap in the pod and what
// is behind the uplink, and none with another source.
func (n *node) carries(tap string) {
	n.t.Helper()
	lan, guest := nstest.OpenLink(n.t, n.host, "switch"), nstest.OpenTap(n.t, n.pod, tap)
	defer lan.Close()
	defer guest.Close()
	nstest.World(n.host, n.pod) // waits: frames to a tap are lost until the kernel has noticed its carrier
	for _, f := range []struct {
		what     string
		from, to *nstest.Wire
		dst, src string
		want     int
	}{
		{"from the guest", guest, lan, switchMAC.String(), guestMAC, 10},
		{"to the guest", lan, guest, guestMAC, switchMAC.String(), 10},
		{"with another source", guest, lan, switchMAC.String(), "52:54:00:00:00:99", 0},
	} {
		if got := nstest.Count(n.t, f.from, f.to, nstest.Frame(hardware(n.t, f.dst), hardware(n.t, f.src), 100, "chain"), 10); got != f.want {
			n.t.Errorf("%s: %d of 10 frames pass, want %d", f.what, got, f.want)
		}
	}
}

func hardware(t testing.TB, mac string) net.HardwareAddr {
	t.Helper()
	parsed, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// forwards demands a rule in the namespace's netfilter tables.
func (n *node) forwards(ns *nstest.NS, to string) {
	n.t.Helper()
	if rules := ns.Run(n.t, "nft", "list", "ruleset"); !strings.Contains(rules, to) {
		n.t.Errorf("no rule forwards to %s:\n%s", to, rules)
	}
}
