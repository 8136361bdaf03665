package nstest

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestWorldIgnoresWhatHasComeAndGone(t *testing.T) {
	t.Parallel()
	for name, episode := range map[string]func(t *testing.T, host, pod *NS){
		"nothing": func(*testing.T, *NS, *NS) {},
		"veth pair": func(t *testing.T, host, _ *NS) {
			ip(t, host, "ip link add x type veth peer name y\n ip link set x up\n ip link set y up\n ip link del x")
		},
		"veth to a pod": func(t *testing.T, host, pod *NS) {
			Veth(t, host, "x", pod, "y")
			ip(t, host, "ip link set x master br0")
			WaitForwarding(t, host, "x")
			ip(t, pod, "ip link del y")
		},
		"tap in use as a port": func(t *testing.T, host, _ *NS) {
			tapOn(t, host, "x")
			w := OpenTap(t, host, "x")
			WaitForwarding(t, host, "x")
			w.Close()
			ip(t, host, "ip tuntap del x mode tap")
		},
		"tap opened and closed": func(t *testing.T, host, _ *NS) {
			w := OpenTap(t, host, "tap0")
			WaitForwarding(t, host, "tap0")
			w.Close()
		},
		"qdiscs, on another": func(t *testing.T, host, _ *NS) {
			ip(t, host, `ip link add x type veth peer name y
				tc qdisc add dev x root tbf rate 1mbit burst 32kbit latency 400ms
				tc qdisc add dev x ingress
				tc filter add dev x ingress protocol all u32 match u32 0 0 action mirred egress redirect dev y
				ip link del x`)
		},
		"learned entries": func(t *testing.T, host, _ *NS) {
			w := OpenTap(t, host, "tap0")
			WaitForwarding(t, host, "tap0")
			w.Send(Frame(macA, macB, 0, "hello"))
			eventually(t, "learned", func() bool {
				return strings.Contains(host.Run(t, "bridge", "fdb"), macB.String())
			})
			w.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, pod := New(t), New(t)
			Bridge(t, host, "br0", bridgeMAC)
			tapOn(t, host, "tap0")
			before := World(host, pod)
			episode(t, host, pod)
			if diff := Diff(before, World(host, pod)); diff != "" {
				t.Errorf("world (-before +after):\n%s", diff)
			}
		})
	}
}

// TestWorldIsTheSameAgain undoes and redoes: numbers that the kernel hands out
// are others the second time.
func TestWorldIsTheSameAgain(t *testing.T) {
	t.Parallel()
	host, pod := New(t), New(t)
	Bridge(t, host, "br0", bridgeMAC)
	build := func() string {
		t.Helper()
		ip(t, host, "ip link add v0 address 02:00:00:00:00:10 type veth peer name eth0 address 02:00:00:00:00:11 netns "+pod.Path)
		ip(t, pod, "ip link set eth0 up\n tc qdisc add dev eth0 root tbf rate 1mbit burst 32kbit latency 400ms")
		ip(t, host, "ip link set v0 master br0 up")
		return World(host, pod)
	}
	first := build()
	ip(t, host, "ip link del v0\n ip link add other type veth peer name another")
	ip(t, host, "ip link add more netns "+New(t).Path+" type veth peer name less")
	ip(t, host, "ip link del other")
	second := build()
	ip(t, host, "ip link del less")
	if diff := Diff(first, World(host, pod)); diff != "" {
		t.Errorf("world (-first +again):\n%s", diff)
	}
	if first == second {
		t.Error("world does not show another veth")
	}
}

func TestWorldShowsChanges(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"bridge link set dev tap0 learning off": `
			+ 0 link tap0 linkinfo info_slave_data learning false
			- 0 link tap0 linkinfo info_slave_data learning true`,
		"bridge link set dev tap0 isolated on": `
			- 0 link tap0 linkinfo info_slave_data isolated false
			+ 0 link tap0 linkinfo info_slave_data isolated true`,
		"bridge fdb add 02:00:00:00:00:77 dev tap1 self local": `
			+ 0 fdb {"flags":["self"],"ifname":"tap1","mac":"02:00:00:00:00:77","state":"permanent"}`,
		"bridge fdb replace 02:00:00:00:00:70 dev tap0 master static": `
			+ 0 fdb {"flags":[],"ifname":"tap0","mac":"02:00:00:00:00:70","master":"br0","state":"static"}
			- 0 fdb {"flags":["sticky"],"ifname":"tap0","mac":"02:00:00:00:00:70","master":"br0","state":"static"}`,
		"tc qdisc add dev tap0 ingress": `
			+ 0 qdisc {"dev":"tap0","handle":"ffff:","kind":"ingress","options":{},"parent":"ffff:fff1"}`,
		"tc filter del dev tap1 egress pref 1": `
			- 0 filter tap1 egress {"chain":0,"kind":"u32","pref":1,"protocol":"all"}
			- 0 filter tap1 egress {"chain":0,"kind":"u32","options":{"fh":"800:","ht_divisor":1},"pref":1,"protocol":"all"}
			- 0 filter tap1 egress {"chain":0,"kind":"u32","options":{"actions":[{"bind":1,"control_action":{"type":"stolen"},"direction":"egress","kind":"mirred","mirred_action":"redirect","order":1,"ref":1,"to_dev":"tap0"}],"bkt":"0","fh":"800::800","key_ht":"800","match":{"mask":"0","off":0,"offmask":"","value":"0"},"not_in_hw":true,"order":2048},"pref":1,"protocol":"all"}`,
		"sysctl -qw net.ipv4.conf.tap0.arp_ignore=1": `
			- 0 sysctl net/ipv4/conf/tap0/arp_ignore 0
			+ 0 sysctl net/ipv4/conf/tap0/arp_ignore 1`,
		"sysctl -qw net.ipv6.conf.tap0.accept_ra=0": `
			+ 0 sysctl net/ipv6/conf/tap0/accept_ra 0
			- 0 sysctl net/ipv6/conf/tap0/accept_ra 1`,
		"ip link set tap0 alias mine": `
			+ 0 link tap0 ifalias mine`,
		"ip link set br0 type bridge ageing_time 100": `
			+ 0 link br0 linkinfo info_data ageing_time 100
			- 0 link br0 linkinfo info_data ageing_time 30000`,
		"ip link set tap0 group 7": `
			+ 0 link tap0 group 7
			- 0 link tap0 group default`,
		"ip link set tap0 down": `
			- 0 link tap0 flags NO-CARRIER
			- 0 link tap0 flags UP`,
		"ip addr add 192.0.2.1/32 dev lo": `
			+ 0 link lo addr_info {"family":"inet","label":"lo","local":"192.0.2.1","prefixlen":32,"scope":"global"}`,
		"ip route add blackhole 192.0.2.0/24": `
			+ 0 route {"dst":"192.0.2.0/24","flags":[],"protocol":"boot","scope":"global","table":"main","type":"blackhole"}`,
		"ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:99 dev br0": `
			+ 0 neigh {"dev":"br0","dst":"192.0.2.1","lladdr":"02:00:00:00:00:99","state":["PERMANENT"]}`,
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			ns := New(t)
			Bridge(t, ns, "br0", bridgeMAC)
			tapOn(t, ns, "tap0")
			ip(t, ns, `ip tuntap add tap1 mode tap
				bridge fdb add 02:00:00:00:00:70 dev tap0 master static sticky
				tc qdisc add dev tap1 clsact
				tc filter add dev tap1 egress pref 1 protocol all u32 match u32 0 0 action mirred egress redirect dev tap0`)
			before := World(ns)
			ip(t, ns, command)
			if diff := cmp.Diff(sortedLines(want), sortedLines(Diff(before, World(ns)))); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func sortedLines(text string) (lines []string) {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	slices.Sort(lines)
	return lines
}

// TestWorldShowsMAB: iproute2 6.1 does not.
func TestWorldShowsMAB(t *testing.T) {
	t.Parallel()
	ns := New(t)
	Bridge(t, ns, "br0", bridgeMAC)
	tapOn(t, ns, "tap0")
	if portAttrs(t, ns, "tap0")[unix.IFLA_BRPORT_MAB] == nil {
		Skip(t, "the kernel knows no MAC authentication bypass")
	}
	before := World(ns)
	ns.setPort(t, "tap0", map[int]byte{unix.IFLA_BRPORT_LEARNING: 1, unix.IFLA_BRPORT_LOCKED: 1, unix.IFLA_BRPORT_MAB: 1})
	want := `
		+ 0 link tap0 brport.40 01
		- 0 link tap0 brport.40 00
		+ 0 link tap0 linkinfo info_slave_data locked true
		- 0 link tap0 linkinfo info_slave_data locked false`
	if diff := cmp.Diff(sortedLines(want), sortedLines(Diff(before, World(ns)))); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// setPort sets flags of a bridge port that iproute2 6.1 cannot set.
func (n *NS) setPort(t *testing.T, name string, flags map[int]byte) {
	t.Helper()
	link, err := n.Handle().LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	header := nl.NewIfInfomsg(unix.AF_BRIDGE)
	header.Index = int32(link.Attrs().Index)
	port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for kind, value := range flags {
		port.AddRtAttr(kind, []byte{value})
	}
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	req.AddData(header)
	req.AddData(port)
	n.Do(func() { _, err = req.Execute(unix.NETLINK_ROUTE, 0) })
	if err != nil {
		t.Fatal(err)
	}
}
