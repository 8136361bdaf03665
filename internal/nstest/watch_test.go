package nstest

import (
	"slices"
	"strings"
	"testing"
)

func TestMonitorIsSilent(t *testing.T) {
	t.Parallel()
	ns := New(t)
	Bridge(t, ns, "br0", bridgeMAC)
	tapOn(t, ns, "tap0")
	ip(t, ns, "ip link add x type veth peer name y\n ip link set x up\n ip link set y up") // with IPv6
	w := Monitor(t, ns)
	_ = World(ns)
	ip(t, ns, "ip link\n bridge fdb\n tc qdisc")
	if got := w.Events(); len(got) != 0 {
		t.Errorf("events though nothing changed:\n%s", strings.Join(got, "\n"))
	}
}

func TestMonitorHears(t *testing.T) {
	t.Parallel()
	ns := New(t)
	Bridge(t, ns, "br0", bridgeMAC)
	tapOn(t, ns, "tap0")
	ip(t, ns, "ip tuntap add tap1 mode tap")
	for _, step := range []struct{ command, event string }{
		{"bridge link set dev tap0 learning off", "new port tap0"},
		{"bridge fdb add 02:00:00:00:00:77 dev tap0 master static", "new fdb 02:00:00:00:00:77 tap0"},
		{"bridge fdb del 02:00:00:00:00:77 dev tap0 master", "del fdb 02:00:00:00:00:77 tap0"},
		{"tc qdisc add dev tap0 clsact", "new qdisc tap0"},
		{"tc filter add dev tap0 ingress protocol all u32 match u32 0 0", "new filter tap0"},
		{"ip addr add 192.0.2.1/24 dev br0", "new addr 192.0.2.1/24 br0"},
		{"ip route add 198.51.100.0/24 dev br0", "new route 198.51.100.0/24"},
		{"ip -6 route add 2001:db8::/32 dev lo", "new route 2001:db8::/32"},
		{"ip -6 addr add 2001:db9::1/128 dev lo", "new addr 2001:db9::1/128 lo"},
		{"ip neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev br0", "new neigh 192.0.2.7 br0"},
		{"ip link set tap0 alias mine", "new link tap0"},
		{"ip link add v0 type veth peer name v1 netns " + New(t).Path, "new nsid"},
		{"ip tuntap del tap1 mode tap", "del link tap1"},
	} {
		w := Monitor(t, ns)
		ip(t, ns, step.command)
		if got := w.Events(); !slices.Contains(got, step.event) {
			t.Errorf("%s: no event %q in\n%s", step.command, step.event, strings.Join(got, "\n"))
		}
	}
}
