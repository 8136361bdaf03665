package attach

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// disturbance changes one thing behind tapbridge's back.
type disturbance struct {
	says    string // what the comparison must say
	in      func(*node) *nstest.NS
	command string // PORT, POD, TAP stand for the names
	modes   []port.Mode
}

func inHost(n *node) *nstest.NS { return n.host }
func inPod(n *node) *nstest.NS  { return n.pod }

var (
	anyMode   = port.Modes
	podModes  = []port.Mode{port.Tap, port.Veth}
	tapOnly   = []port.Mode{port.Tap}
	hostTapIt = []port.Mode{port.HostTap}
)

var disturbances = []disturbance{
	{`port "PORT" is missing`, inHost, "ip link del PORT", anyMode},
	{`port "PORT" is missing`, inHost, "ip link set PORT down; ip link set PORT name other", anyMode},
	{`bridge is br9, want br0`, inHost, "ip link add br9 type bridge; ip link set PORT master br9", anyMode},
	{`bridge is none, want br0`, inHost, "ip link set PORT nomaster", anyMode},
	{`port "PORT": link is down, want up`, inHost, "ip link set PORT down", anyMode},
	{`port "PORT": MAC is 02:00:00:00:00:99, want fe:54:00:12:34:56`, inHost, "ip link set PORT address 02:00:00:00:00:99", anyMode},
	{`port "PORT": MTU is 1300, want 1500`, inHost, "ip link set PORT mtu 1300", anyMode},
	{`port "PORT": alias is "mine"`, inHost, "ip link set PORT alias mine", anyMode},
	{`learning is on, want off`, inHost, "bridge link set dev PORT learning on", anyMode},
	{`unicast flood is on, want off`, inHost, "bridge link set dev PORT flood on", anyMode},
	{`multicast flood is off, want on`, inHost, "bridge link set dev PORT mcast_flood off", anyMode},
	{`broadcast flood is off, want on`, inHost, "bridge link set dev PORT bcast_flood off", anyMode},
	{`port state is disabled, want forwarding`, inHost, "bridge link set dev PORT state 0", podModes},
	{`isolated is off, want on`, inHost, "bridge link set dev PORT isolated off", anyMode},
	{`hairpin is off, want on`, inHost, "bridge link set dev PORT hairpin off", anyMode},
	{`locked is off, want on`, inHost, "bridge link set dev PORT locked off", anyMode},
	{`BPDU guard is off, want on`, inHost, "bridge link set dev PORT guard off", anyMode},
	{`FDB entry 52:54:00:12:34:56 is missing`, inHost, "bridge fdb del 52:54:00:12:34:56 dev PORT master", anyMode},
	{`FDB entry 52:54:00:12:34:56: sticky is off, want on`, inHost, "bridge fdb replace 52:54:00:12:34:56 dev PORT master static", anyMode},
	{`FDB entry 52:54:00:12:34:56: state is learned, want static`, inHost, "bridge link set dev PORT learning on; bridge fdb replace 52:54:00:12:34:56 dev PORT master dynamic", podModes},
	{`FDB entry 52:54:00:12:34:56: port is up0, want PORT`, inHost, "bridge fdb replace 52:54:00:12:34:56 dev up0 master static sticky", anyMode},
	{`pod interface "POD" is missing`, inPod, "ip link del POD", podModes},
	{`pod interface "POD": link is down, want up`, inPod, "ip link set POD down", podModes},
	{`pod interface "POD": MAC is 02:00:00:00:00:99, want 52:54:00:12:34:56`, inPod, "ip link set POD address 02:00:00:00:00:99", podModes},
	{`pod interface "POD": MTU is 1300, want 1400`, inPod, "ip link set POD mtu 1300", podModes},
	{`pod interface "POD": IPv6 is on, want off`, inPod, "sysctl -qw net.ipv6.conf.POD.disable_ipv6=0", tapOnly},
	{`pod interface "POD": addresses is 10.0.0.1/24, want none`, inPod, "ip addr add 10.0.0.1/24 dev POD", tapOnly},
	{`redirect from pod interface to tap is off, want on`, inPod, "tc filter del dev POD ingress; tc filter add dev POD ingress protocol all u32 match u32 0 0 action mirred egress redirect dev lo", tapOnly},
	{`redirect from pod interface to tap is off, want on`, inPod, "tc filter del dev POD ingress; tc filter add dev POD ingress pref 1 protocol ip u32 match u32 0 0 action mirred egress redirect dev TAP", tapOnly},
	{`redirect from pod interface to tap is off, want on`, inPod, "tc qdisc del dev POD ingress", tapOnly},
	{`redirect from tap to pod interface is off, want on`, inPod, "tc filter del dev TAP ingress", tapOnly},
	{`tap "TAP" is missing`, inPod, "ip link del TAP", tapOnly},
	{`tap "TAP" is missing`, inPod, "ip link set TAP down; ip link set TAP name other", tapOnly},
	{`tap "TAP": link is down, want up`, inPod, "ip link set TAP down", tapOnly},
	{`tap "TAP": MAC is 02:00:00:00:00:99, want fe:54:00:12:34:56`, inPod, "ip link set TAP address 02:00:00:00:00:99", tapOnly},
	{`tap "TAP": MTU is 1300, want 1400`, inPod, "ip link set TAP mtu 1300", tapOnly},
	{`tap owner is 1, want 107`, inPod, "ip link del TAP; ip tuntap add dev TAP mode tap user 1 group 108 multi_queue", tapOnly},
	{`tap group is 1, want 108`, inPod, "ip link del TAP; ip tuntap add dev TAP mode tap user 107 group 1 multi_queue", tapOnly},
	{`tap multi-queue is off, want on`, inHost, "ip link del PORT; ip tuntap add dev PORT mode tap user 107 group 108; ip link set PORT master br0", hostTapIt},
	{`port "PORT": queue is tbf of 80000000 bit/s, burst 16000000 bit, backlog 3000000 bytes, want tbf of 400000000 bit/s, burst 8388608 bit, backlog 2500000 bytes`, inHost, "tc qdisc replace dev PORT root tbf rate 80mbit burst 2000000 limit 3000000", anyMode},
	{`port "PORT": queue is noqueue, want tbf`, inHost, "tc qdisc del dev PORT root", podModes},
	{`tap "TAP": queue is tbf of 80000000 bit/s, burst 16000000 bit, backlog 3000000 bytes, want noqueue`, inPod, "tc qdisc replace dev TAP root tbf rate 80mbit burst 2000000 limit 3000000", tapOnly},
	{`ifb "IFB" is missing`, inHost, "ip link del IFB", anyMode},
	{`ifb "IFB": link is down, want up`, inHost, "ip link set IFB down", anyMode},
	{`ifb "IFB": queue is tbf of 80000000 bit/s`, inHost, "tc qdisc replace dev IFB root tbf rate 80mbit burst 2000000 limit 3000000", anyMode},
	{`redirect from port to ifb is off, want on`, inHost, "tc qdisc del dev PORT ingress", anyMode},
	{`ipSpoofChk is off, want on`, inHost, "nft delete table bridge tapbridge", anyMode},
	{`ipSpoofChk rules are missing or changed`, inHost, "nft insert rule bridge tapbridge guests accept", anyMode},
	{`ipSpoofChk rules are missing or changed`, inHost, "nft flush chain bridge tapbridge guests_ipv6", anyMode},
	{`ipSpoofChk rules are missing or changed`, inHost, "nft add table bridge tapbridge {flags dormant;}", anyMode},
	{`ipSpoofChk: addresses is 10.9.9.9 fd00::9, want none`, inHost, "nft add element bridge tapbridge ipv4 {PORT . 10.9.9.9}; nft add element bridge tapbridge ipv6 {PORT . fd00::9}", anyMode},
	{`ipSpoofChk: MAC is none, want 52:54:00:12:34:56`, inHost, "nft flush set bridge tapbridge macs", anyMode},
	{`port "PORT": kind is veth, want tun`, inHost, "ip link del PORT; ip link add PORT type veth peer name x1", hostTapIt},
}

// Each of the ways in which a port can be spoilt is named, and none is seen
// where there is none.
func TestEachDriftIsNamed(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		for _, d := range disturbances {
			if !slices.Contains(d.modes, a.Mode) {
				continue
			}
			n.mustApply(a)
			n.disturb(d, a)
			want := named(d.says, a)
			if err := n.drift(a); err == nil || !strings.Contains(err.Error(), want) {
				n.Errorf("%s: drift %v, want %s", d.command, err, want)
			}
			n.tidy(a)
		}
	})
}

// Drifts do not hide each other.
func TestAllDriftsAtOnce(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.mustApply(a)
		all := disturbance{in: inHost, command: "bridge link set dev PORT learning on flood on mcast_flood off bcast_flood off isolated off hairpin off locked off; " +
			"bridge fdb del 52:54:00:12:34:56 dev PORT master; ip link set PORT alias mine; ip link set PORT down mtu 1300 address 02:00:00:00:00:99"}
		n.disturb(all, a)
		var drift *port.Drift
		if err := n.drift(a); !errors.As(err, &drift) {
			n.Fatalf("drift %v", err)
		}
		want := named(`port "PORT": MAC is 02:00:00:00:00:99, want fe:54:00:12:34:56
port "PORT": MTU is 1300, want 1500
port "PORT": link is down, want up
port "PORT": alias is "mine", want "`+a.Record()+`"
learning is on, want off
unicast flood is on, want off
multicast flood is off, want on
broadcast flood is off, want on
isolated is off, want on
hairpin is off, want on
locked is off, want on
FDB entry 52:54:00:12:34:56 is missing`, a)
		if got := strings.Join(drift.Differences.Texts(), "\n"); got != want {
			n.Errorf("differences:\n%s\nwant:\n%s", got, want)
		}
	})
}

// Looking changes nothing, on a port that is right and on one that is not.
func TestObserveIsSilent(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.mustApply(a)
		host, pod := nstest.Monitor(n.T, n.host), nstest.Monitor(n.T, n.pod)
		if err := n.drift(a); err != nil {
			n.Error(err)
		}
		if events := append(host.Events(), pod.Events()...); len(events) > 0 {
			n.Errorf("Observe made changes: %q", events)
		}
	})
}

func (n *node) disturb(d disturbance, a port.Attachment) {
	n.Helper()
	for command := range strings.SplitSeq(named(d.command, a), "; ") {
		words := strings.Fields(command)
		if words[0] == "sysctl" {
			n.sysctl(d.in(n), words[2])
			continue
		}
		d.in(n).Run(n.T, words[0], words[1:]...)
	}
}

func (n *node) sysctl(ns *nstest.NS, setting string) {
	n.Helper()
	key, value, _ := strings.Cut(setting, "=")
	var err error
	ns.Do(func() { err = os.WriteFile("/proc/sys/"+strings.ReplaceAll(key, ".", "/"), []byte(value), 0) })
	if err != nil {
		n.Fatal(err)
	}
}

// tidy takes away whatever a disturbance has made of the attachment.
func (n *node) tidy(a port.Attachment) {
	n.Helper()
	if err := n.remove(a.ID); err != nil {
		n.Fatal(err)
	}
	for _, name := range []string{a.PortName(), "other", "br9"} {
		_, _ = n.host.Command("ip", "link", "del", name).CombinedOutput()
	}
	for _, name := range []string{a.TapName(), a.IfName, "other"} {
		_, _ = n.pod.Command("ip", "link", "del", name).CombinedOutput()
	}
	_, _ = n.host.Command("bridge", "fdb", "del", a.Guest.String(), "dev", "up0", "master").CombinedOutput()
}

func named(text string, a port.Attachment) string {
	return strings.NewReplacer("PORT", a.PortName(), "POD", a.IfName, "TAP", a.TapName(), "IFB", a.IFBName()).Replace(text)
}
