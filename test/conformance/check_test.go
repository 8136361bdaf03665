package conformance

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// CHECK with a cniVersion before 0.4.0 is E(1).
func Test58CHECKNeedsVersion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, version := range []string{"0.3.0", "0.3.1"} {
		added := n.call("ADD", n.conf(conf{"cniVersion": version})).ok()
		n.call("CHECK", n.conf(conf{"cniVersion": version}, added.prev())).fails(1)
		n.call("DEL", n.conf()).ok()
	}
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		added := n.call("ADD", n.conf(conf{"cniVersion": version})).ok()
		n.call("CHECK", n.conf(conf{"cniVersion": version}, added.prev())).silent()
		n.call("DEL", n.conf()).ok()
	}
}

// CHECK without prevResult is E(7).
func Test59CHECKNeedsPrevResult(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.call("ADD", n.conf()).ok()
		n.call("CHECK", n.conf()).fails(7, "prevResult")
		n.call("CHECK", n.conf(conf{"prevResult": json.RawMessage("null")})).fails(7, "prevResult")
		n.call("CHECK", n.conf(conf{"prevResult": conf{"cniVersion": newest}})).fails(7, "prevResult")
		n.call("CHECK", n.conf(conf{"prevResult": json.RawMessage(before)})).fails(7, "prevResult")
	})
}

// CHECK right after ADD succeeds without a word: the tap has no carrier yet, and
// a tap that is a port is disabled.
func Test60CHECKAtOnce(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for name, c := range kinds {
			added := n.call("ADD", n.conf(c)).ok()
			n.call("CHECK", n.conf(c, added.prev())).silent()
			port := n.links(n.host)[added.result().port().Name]
			if n.mode() == "host-tap" && (port.LinkInfo.Port["state"] != "disabled" || !slices.Contains(port.Flags, "NO-CARRIER")) {
				t.Errorf("%s: a tap without a VMM is in state %v, %v", name, port.LinkInfo.Port["state"], port.Flags)
			}
			n.call("DEL", n.conf(c)).ok()
		}
	})
}

// drift is a change to the kernel that CHECK must notice.
type drift struct {
	modes []string // nil: all
	conf  conf     // on top of libvirt
	host  string   // commands
	pod   string
	word  string // of the error
}

var (
	veths  = []string{"tap", "veth"}
	inTap  = []string{"tap"}
	inHost = []string{"host-tap"}
	inVeth = []string{"veth"}
	kernel = conf{"macTableManager": nil}
)

// drifts are all but those of VLANs, which wait for their support: the VLAN set
// of the port, and the bridge's vlan_filtering.
var drifts = map[string]drift{
	"tap deleted":        {modes: inTap, pod: "ip link del tap1", word: "tap1"},
	"tap renamed":        {modes: inTap, pod: "ip link set tap1 down\n ip link set tap1 name other up", word: "tap1"},
	"tap replaced":       {modes: inTap, pod: "ip link del tap1\n ip tuntap add tap1 mode tap\n ip link set tap1 up", word: "tap1"},
	"tap down":           {modes: inTap, pod: "ip link set tap1 down", word: "tap1"},
	"tap's MAC":          {modes: inTap, pod: "ip link set tap1 address 02:00:00:00:00:99", word: "02:00:00:00:00:99"},
	"tap's MTU":          {modes: inTap, pod: "ip link set tap1 mtu 1400", word: "1400"},
	"tap's IPv6 on":      {modes: inTap, pod: "sysctl -qw net.ipv6.conf.tap1.disable_ipv6=0", word: "IPv6"},
	"tap's qdisc gone":   {modes: inTap, pod: "tc qdisc del dev tap1 ingress", word: "redirect"},
	"tap's filter gone":  {modes: inTap, pod: "tc filter del dev tap1 ingress", word: "redirect"},
	"filter elsewhere":   {modes: inTap, pod: "tc filter del dev tap1 ingress\n tc filter add dev tap1 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev lo", word: "redirect"},
	"qdisc gone":         {modes: inTap, pod: "tc qdisc del dev net1 ingress", word: "redirect"},
	"filter gone":        {modes: inTap, pod: "tc filter del dev net1 ingress", word: "redirect"},
	"interface deleted":  {modes: veths, pod: "ip link del net1", word: "net1"},
	"interface renamed":  {modes: veths, pod: "ip link set net1 down\n ip link set net1 name other up", word: "net1"},
	"interface replaced": {modes: veths, pod: "ip link del net1\n ip link add net1 type bridge\n ip link set net1 up", word: "net1"},
	"interface down":     {modes: veths, pod: "ip link set net1 down", word: "net1"},
	"interface's MAC":    {modes: veths, pod: "ip link set net1 address 02:00:00:00:00:99", word: "02:00:00:00:00:99"},
	"interface's MTU":    {modes: veths, pod: "ip link set net1 mtu 1400", word: "1400"},
	"interface's IPv6":   {modes: inTap, pod: "sysctl -qw net.ipv6.conf.net1.disable_ipv6=0", word: "IPv6"},
	"address gone":       {modes: inVeth, conf: recording, pod: "ip addr flush dev net1", word: "10.9.0.2"},

	"port deleted":       {host: "ip link del PORT", word: "PORT"},
	"port renamed":       {host: "ip link set PORT down\n ip link set PORT name other up", word: "PORT"},
	"port replaced":      {modes: inHost, host: "ip link del PORT\n ip tuntap add PORT mode tap\n ip link set PORT master br0 up", word: "PORT"},
	"port down":          {host: "ip link set PORT down", word: "PORT"},
	"port's MAC":         {host: "ip link set PORT address 02:00:00:00:00:99", word: "02:00:00:00:00:99"},
	"port's MTU":         {host: "ip link set PORT mtu 1400", word: "1400"},
	"port's IPv6 on":     {host: "sysctl -qw net.ipv6.conf.PORT.disable_ipv6=0", word: "IPv6"},
	"port's alias":       {host: "ip link set PORT alias mine", word: "alias"},
	"port on no bridge":  {host: "ip link set PORT nomaster", word: "bridge"},
	"port on another":    {host: "ip link add br1 type bridge\n ip link set PORT master br1", word: "br1"},
	"port joined again":  {host: "ip link set PORT nomaster\n ip link set PORT master br0", word: "learning"},
	"learning on":        {host: "bridge link set dev PORT learning on", word: "learning"},
	"learning off":       {conf: kernel, host: "bridge link set dev PORT learning off", word: "learning"},
	"flood on":           {host: "bridge link set dev PORT flood on", word: "flood"},
	"flood off":          {conf: kernel, host: "bridge link set dev PORT flood off", word: "flood"},
	"multicast off":      {host: "bridge link set dev PORT mcast_flood off", word: "multicast"},
	"broadcast off":      {host: "bridge link set dev PORT bcast_flood off", word: "broadcast"},
	"isolated on":        {host: "bridge link set dev PORT isolated on", word: "isolated"},
	"isolated off":       {conf: conf{"portIsolation": true}, host: "bridge link set dev PORT isolated off", word: "isolated"},
	"hairpin on":         {host: "bridge link set dev PORT hairpin on", word: "hairpin"},
	"hairpin off":        {conf: conf{"hairpinMode": true}, host: "bridge link set dev PORT hairpin off", word: "hairpin"},
	"locked on":          {host: "bridge link set dev PORT locked on", word: "locked"},
	"locked off":         {conf: conf{"macspoofchk": true}, host: "bridge link set dev PORT locked off", word: "locked"},
	"entry gone":         {host: "bridge fdb del GUEST dev PORT master", word: "FDB"},
	"entry moved":        {host: "bridge fdb replace GUEST dev uplink master static sticky", word: "uplink"},
	"entry not static":   {modes: veths, host: "bridge fdb del GUEST dev PORT master\n bridge fdb add GUEST dev PORT master dynamic", word: "FDB"},
	"entry local":        {host: "bridge fdb replace GUEST dev PORT master permanent", word: "FDB"},
	"entry not sticky":   {host: "bridge fdb del GUEST dev PORT master\n bridge fdb add GUEST dev PORT master static", word: "sticky"},
	"static entry stuck": {conf: conf{"fdb": "static"}, host: "bridge fdb replace GUEST dev PORT master static sticky", word: "sticky"},
	"bridge deleted":     {host: "ip link del br0", word: "br0"},
}

// CHECK notices every part that is missing or not as it should be.
func Test61CHECKNotices(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, mode string) {
		for _, name := range slices.Sorted(maps.Keys(drifts)) {
			d := drifts[name]
			if d.modes != nil && !slices.Contains(d.modes, mode) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, conf{"mode": mode}, libvirt, d.conf)
				added := n.call("ADD", n.conf())
				r := added.result()
				n.call("CHECK", n.conf(added.prev())).silent()
				n.sh(n.host, r, d.host)
				n.sh(n.pod, r, d.pod)
				n.call("CHECK", n.conf(added.prev())).fails(anyCode, r.names(d.word))
			})
		}
	})
}

// Several differences are told together.
func TestCHECKTellsAll(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		added := n.call("ADD", n.conf(libvirt))
		n.sh(n.host, added.result(), "bridge link set dev PORT learning on isolated on\n bridge fdb del GUEST dev PORT master\n ip link set PORT mtu 1400")
		n.call("CHECK", n.conf(libvirt, added.prev())).fails(anyCode, "learning", "isolated", "FDB", "1400")
	})
}

// A prevResult with interfaces of later plugins, and of other sandboxes, is
// fine.
func Test62LaterPlugins(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		added := n.call("ADD", n.conf(recording)).ok()
		var r map[string]any
		added.decode(&r)
		more := []any{
			conf{"name": "bwp123", "mac": "02:00:00:00:00:55"},
			conf{"name": "eth0", "mac": "02:00:00:00:00:56", "sandbox": n.pod.Path},
			conf{"name": "net1", "mac": "02:00:00:00:00:57", "sandbox": "/run/netns/other"},
			conf{"name": "net1", "mac": "02:00:00:00:00:58"},
		}
		r["interfaces"] = slices.Concat(more, r["interfaces"].([]any), more)
		for _, ip := range r["ips"].([]any) {
			ip := ip.(map[string]any)
			ip["interface"] = ip["interface"].(float64) + float64(len(more))
		}
		r["ips"] = append(r["ips"].([]any), conf{"address": "10.3.0.1/24", "interface": 1}, conf{"address": "10.3.0.2/24"})
		n.call("CHECK", n.conf(recording, conf{"prevResult": r})).silent()
	})
}

// The bridge's MAC is not ours: that it has changed is no error.
func Test63BridgeMACIsNotOurs(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		added := n.call("ADD", n.conf(libvirt)).ok()
		n.sh(n.host, nil, "ip link set br0 address 02:00:00:00:00:99")
		n.call("CHECK", n.conf(libvirt, added.prev())).silent()
		n.sh(n.host, nil, "ip link set br0 mtu 1600") // nor is a raised MTU
		n.call("CHECK", n.conf(libvirt, added.prev())).silent()
	})
}

// IPAM's CHECK is called if there is IPAM, and its error is ours.
func Test64CHECKOfIPAM(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		added := n.call("ADD", n.conf(recording)).ok()
		n.call("CHECK", n.conf(recording, added.prev())).silent()
		n.ipam.on("CHECK", failure(123, "lease is lost"))
		n.call("CHECK", n.conf(recording, added.prev())).fails(123, "lease is lost")
		n.call("CHECK", n.conf(added.prev())).silent()
		if diff := cmp.Diff([]string{"ADD", "CHECK", "CHECK"}, n.ipam.verbs()); diff != "" {
			t.Errorf("calls of the delegate (-want +got):\n%s", diff)
		}
	})
}

// CHECK changes nothing, be the port as it should or not.
func Test65CHECKChangesNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		added := n.call("ADD", n.conf(libvirt))
		n.quiet(func() { n.call("CHECK", n.conf(libvirt, added.prev())).silent() })
		n.sh(n.host, added.result(), "bridge link set dev PORT isolated on\n bridge fdb del GUEST dev PORT master")
		n.quiet(func() { n.call("CHECK", n.conf(libvirt, added.prev())).fails(anyCode) })
	})
}

// quiet demands that nothing is changed on the node, not even back and forth.
func (n *node) quiet(during func()) {
	n.t.Helper()
	n.unchanged(func() {
		host, pod := nstest.Monitor(n.t, n.host), nstest.Monitor(n.t, n.pod)
		during()
		if events := slices.Concat(host.Events(), pod.Events()); len(events) > 0 {
			n.t.Errorf("events: %q", events)
		}
	})
}
