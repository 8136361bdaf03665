package bridge_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/bridge"
)

// switchWith is a bridge, its uplink eth0 and its other ports, each of them "" for
// managed or the flags that it has on: L for learning, F for unicast flood.
type switchWith struct {
	aware, promiscuous bool
	uplink             string
	kind               string // of the uplink
	others             []string
}

func (s switchWith) links() (br rtnl.Link, ports []rtnl.Link) {
	br = rtnl.Link{Name: "br0", Kind: "bridge", Data: flag(nl.IFLA_BR_VLAN_FILTERING, s.aware)}
	if s.promiscuous {
		br.Promisc = 1
	}
	ports = append(ports, member("eth0", s.kind, s.uplink))
	for i, flags := range s.others {
		ports = append(ports, member("t"+string(rune('1'+i)), "tun", flags))
	}
	for i := range ports {
		ports[i].Index, ports[i].Promisc = i+1, 1
	}
	return br, ports
}

func member(name, kind, flags string) rtnl.Link {
	has := func(letter rune) bool {
		for _, l := range flags {
			if l == letter {
				return true
			}
		}
		return false
	}
	return rtnl.Link{Name: name, Kind: kind, Port: append(flag(nl.IFLA_BRPORT_LEARNING, has('L')), flag(nl.IFLA_BRPORT_UNICAST_FLOOD, has('F'))...)}
}

func flag(number int, on bool) rtnl.Attributes {
	value := []byte{0}
	if on {
		value[0] = 1
	}
	return nl.NewRtAttr(number, value).Serialize()
}

const noFault = "eth0 has a driver that does not filter addresses, or a program that listens to everything"

// What keeps an uplink promiscuous, in the cases of a recording: where the kernel
// had it so, a reason is found, and where not, only the driver could be one.
func TestWhatKeepsAnUplinkPromiscuous(t *testing.T) {
	data, err := os.ReadFile("testdata/promiscuity.json")
	if err != nil {
		t.Fatal(err)
	}
	var recording struct{ Promiscuity map[string]int }
	if err := json.Unmarshal(data, &recording); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		recorded string
		with     switchWith
		because  []string
	}{
		{"eth0 alone, vf=0", switchWith{uplink: "LF"}, []string{"br0 is not VLAN-aware"}},
		{"eth0 alone, vf=1", switchWith{aware: true, uplink: "LF"}, []string{noFault}},
		{"t1 added with defaults (learning+flood on)", switchWith{aware: true, uplink: "LF", others: []string{"LF"}}, []string{"t1 learns and floods"}},
		{"t1 learning off only", switchWith{aware: true, uplink: "LF", others: []string{"F"}}, []string{"t1 floods"}},
		{"t1 flood off only", switchWith{aware: true, uplink: "LF", others: []string{"L"}}, []string{"t1 learns"}},
		{"t1 learning+flood off", switchWith{aware: true, uplink: "LF", others: []string{""}}, []string{noFault}},
		{"second port t2 unmanaged", switchWith{aware: true, uplink: "LF", others: []string{"", "LF"}}, []string{"t2 learns and floods"}},
		{"t2 managed", switchWith{aware: true, uplink: "LF", others: []string{"", ""}}, []string{noFault}},
		{"br0 promisc (tcpdump -i br0)", switchWith{aware: true, promiscuous: true, uplink: "LF", others: []string{"", ""}}, []string{"br0 is promiscuous itself"}},
		{"vf=0 again with all taps managed", switchWith{uplink: "LF", others: []string{"", ""}}, []string{"br0 is not VLAN-aware"}},
		{"uplink also learning/flood off (auto_cnt 0)", switchWith{aware: true, others: []string{"", ""}}, []string{noFault}},
		{"dummy as uplink", switchWith{aware: true, kind: "dummy", uplink: "LF", others: []string{""}}, []string{noFault}},
		{"macvlan as uplink", switchWith{aware: true, kind: "macvlan", uplink: "LF", others: []string{""}}, []string{noFault}},
		{"vlan dev as uplink", switchWith{aware: true, kind: "vlan", uplink: "LF", others: []string{""}}, []string{noFault}},
		// Not recorded: more than one reason, and more than a person wants to read.
		{"", switchWith{promiscuous: true, uplink: "LF", others: []string{"L", "", "F", "LF"}}, []string{"br0 is not VLAN-aware", "br0 is promiscuous itself", "t1 learns", "and 2 more"}},
		{"", switchWith{aware: true, others: []string{"", "LF"}}, []string{"t2 learns and floods"}},
	} {
		uplinks := bridge.Uplinks(c.with.links())
		if len(uplinks) != 1 || uplinks[0].Name != "eth0" || !uplinks[0].Promiscuous {
			t.Fatalf("%+v: uplinks %v, want eth0", c.with, uplinks)
		}
		if diff := cmp.Diff(c.because, uplinks[0].Few()); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c.with, diff)
		}
		unfiltered := c.with.kind == "dummy"
		if was, recorded := recording.Promiscuity[c.recorded]; recorded == (c.recorded == "") {
			t.Errorf("%q: recorded %v", c.recorded, recorded)
		} else if recorded && !unfiltered && (was == 0) != (c.because[0] == noFault) {
			t.Errorf("%q: the recording has promiscuity %d", c.recorded, was)
		}
	}
}

func TestUplinksAreNeitherPodsNorGuests(t *testing.T) {
	br, _ := switchWith{aware: true}.links()
	ports := []rtnl.Link{member("veth0", "veth", "LF"), member("tap0", "tun", "LF"), member("eth0", "", "LF"), member("bond0", "bond", "LF")}
	ports[2].Index, ports[2].Promisc, ports[3].Index = 3, 1, 4
	var lines []string
	for _, u := range bridge.Uplinks(br, ports) {
		lines = append(lines, u.String())
	}
	want := []string{
		"br0: uplink eth0 is promiscuous: veth0 learns and floods, tap0 learns and floods, bond0 learns and floods",
		"br0: uplink bond0 is not promiscuous",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
