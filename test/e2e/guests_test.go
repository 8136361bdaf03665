package e2e

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

const megabyte = 1 << 20

// Guests in pods reach each other, a plain pod and the LAN behind the uplink, and are reached from there.
func TestGuestsInPods(t *testing.T) {
	r := newRuntime(t, containerd2)
	peer, serve := filepath.Join(tool.Bin, "peer"), []string{"serve", fmt.Sprintf(":%d", port)}
	r.node.daemon("peer", r.onLAN(peer, serve...))
	plain := r.pod("plain", "plain")
	container := plain.peer(serve...)
	a, b := r.vm("a", "", "eth0"), r.vm("b", "", "eth0")
	for _, v := range []*vm{a, b} {
		addresses := v.sh("ip addr show eth0")
		if !strings.Contains(addresses, v.nics[0].MAC.String()) || !strings.Contains(addresses, v.address()) {
			t.Errorf("want MAC %s and address %s, those of the pod", v.nics[0].MAC, v.address())
		}
		must(t, v.Serve(port))
	}
	a.reaches(b.addr())
	b.reaches(a.addr())
	a.sends(b.addr(), 16*megabyte)
	b.sends(a.addr(), 16*megabyte)
	for _, other := range []string{plain.address(), lanAddr} {
		a.reaches(netip.MustParseAddr(other))
		a.sends(netip.MustParseAddr(other), 4*megabyte)
	}
	for _, v := range []*vm{a, b} {
		v.receives("the plain pod", func(args ...string) (string, error) { return r.exec(container, args...) })
		v.receives("the LAN", func(args ...string) (string, error) { return output(r.onLAN(peer, args...)) })
	}
	t.Logf("tapbridge ports:\n%s", r.run(r.path("plugins", "tapbridge.real"), "ports"))
	for _, p := range []*pod{a.pod, b.pod, plain} {
		p.stop()
		p.remove()
	}
	r.clean()
}

// receives demands that what a peer sends to the guest arrives.
func (v *vm) receives(from string, peer func(args ...string) (string, error)) {
	v.t.Helper()
	const bytes = "4194304"
	got, err := peer("send", netip.AddrPortFrom(v.addr(), port).String(), bytes)
	must(v.t, err)
	if v.t.Logf("%s sends guest %s %s bytes by TCP", from, v.config.Metadata.Name, bytes); strings.TrimSpace(got) != bytes {
		v.t.Errorf("the guest got %q", got)
	}
}

// A guest with two cards asks a DHCP server behind the uplink for the address of the second.
func TestGuestWithTwoCardsAndDHCP(t *testing.T) {
	r := newRuntime(t, containerd2)
	r.write([]byte("start 10.214.0.50\nend 10.214.0.50\ninterface lan0\noption subnet 255.255.255.0\n"+
		"lease_file "+r.path("leases")+"\npidfile "+r.path("udhcpd.pid")+"\n"), "udhcpd.conf")
	r.write(nil, "leases")
	r.node.daemon("udhcpd", r.onLAN(tool.Guest.Busybox, "udhcpd", "-f", r.path("udhcpd.conf")))
	v := r.vm("vm", "pair", "eth0", "eth1")
	v.sh(`printf '#!/bin/sh\n[ "$1" != bound ] || ip addr add $ip/$mask dev $interface\n' >/tmp/lease && chmod +x /tmp/lease`)
	v.sh("ip link set eth1 up && udhcpc -i eth1 -n -q -t 20 -s /tmp/lease")
	cards := v.sh("ip addr")
	for _, want := range []string{v.nics[0].MAC.String(), v.nics[1].MAC.String(), v.address() + "/24", "10.214.0.50/24"} {
		if !strings.Contains(cards, want) {
			t.Errorf("the guest has no %s", want)
		}
	}
	v.reaches(netip.MustParseAddr(lanAddr))
	v.reaches(netip.MustParseAddr(dhcpAddr))
	v.stop()
	v.remove()
	r.clean()
}

// Whatever is killed while a guest runs, removing its pod leaves nothing.
func TestKilled(t *testing.T) {
	r := newRuntime(t, containerd2)
	for _, kill := range []struct {
		what string
		do   func(*vm)
	}{
		{"QEMU", func(v *vm) { r.run("kill", "-9", v.qemuPID()) }},
		{"the pod", func(v *vm) { r.run("kill", "-9", v.pid()) }},
		{"containerd", func(*vm) { r.restart() }},
		{"the node's whole network", func(*vm) {
			for link := range strings.FieldsSeq("br0 uplink " + strings.Join(r.ports(), " ")) {
				r.net.Run(t, "ip", "link", "del", link)
			}
			r.pristine = nstest.World(r.net)
		}},
	} {
		t.Logf("killing %s", kill.what)
		v := r.vm("vm", "", "eth0")
		kill.do(v)
		v.stop()
		v.remove()
		r.clean()
	}
	r.succeeded(0, "DEL")
}

// qemuPID is that of the container's first process, in the box.
func (v *vm) qemuPID() string {
	v.t.Helper()
	answer, err := v.ContainerStatus(patient(v.t), &cri.ContainerStatusRequest{ContainerId: v.qemu, Verbose: true})
	must(v.t, err)
	return pidIn(v.t, answer.Info)
}

// ports are those of tapbridge on the node.
func (n *node) ports() (names []string) {
	n.t.Helper()
	for line := range strings.Lines(n.run("ip", "-br", "link", "show", "type", "veth")) {
		if name, _, _ := strings.Cut(line, "@"); strings.HasPrefix(name, "tb") {
			names = append(names, name)
		}
	}
	return names
}
