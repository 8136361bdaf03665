package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

const head = `{"cniVersion":"1.1.0","name":"vms","type":"tapbridge"`

func parse(members, args string) (*config.Config, error) {
	h, err := config.ParseHeader([]byte(head + members + "}"))
	if err != nil {
		return nil, err
	}
	return h.Parse(args)
}

func plan(t *testing.T, members string, br bridge.Bridge) port.Attachment {
	t.Helper()
	c, err := parse(members, "")
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.Plan(port.ID{ContainerID: "c1", IfName: "net1"}, br)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestDefaults(t *testing.T) {
	want := port.Attachment{
		ID:      port.ID{ContainerID: "c1", IfName: "net1"},
		Network: "vms", Bridge: "br0", Mode: port.Tap, Table: port.Kernel,
		Guest: mac.Stable("c1", "net1"), MTU: 9000, PortMTU: 9000,
		Access: tap.Access{Owner: 107, Group: 107},
	}
	got := plan(t, `,"bridge":"br0"`, bridge.Bridge{Name: "br0", MTU: 9000})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEveryKey(t *testing.T) {
	want := port.Attachment{
		ID:      port.ID{ContainerID: "c1", IfName: "net1"},
		Network: "vms", Bridge: "br0", Mode: port.HostTap, Table: port.Static,
		Guest: mac.Addr{2, 0, 0, 0, 0, 1}, MTU: 1400, PortMTU: 1500,
		Options: port.Options{Isolated: true, Hairpin: true, Locked: true, Guarded: true, DAN: true},
		Access:  tap.Access{Owner: 0, Group: tap.Anyone, MultiQueue: true},
		Label:   "system_u:system_r:container_t:s0:c1,c2",
	}
	got := plan(t, `,"bridge":"br0","mode":"host-tap","macTableManager":"libvirt","fdb":"static","mac":"02:00:00:00:00:01","mtu":1400,
		"multiQueue":true,"owner":0,"group":-1,"macspoofchk":true,"ipSpoofChk":true,"portIsolation":true,"hairpinMode":true,"ipam":{"type":"host-local"},
		"dan":true,"selinuxContext":"system_u:system_r:container_t:s0:c1,c2"`, bridge.Bridge{Name: "br0", MTU: 1500})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPromote(t *testing.T) {
	for members, want := range map[string]bool{`"promote":true`: true, `"promote":false`: false, `"promote":null`: false, `"mode":"veth","promote":false`: false} {
		if got := plan(t, `,"bridge":"br0",`+members, bridge.Bridge{Name: "br0", MTU: 1500}).Promote; got != want {
			t.Errorf("%s: promoted is %v", members, got)
		}
	}
}

func TestWhatOthersPutInPasses(t *testing.T) {
	for _, members := range []string{
		`"capabilities":{"mac":true}`, `"capabilities":null`, `"capabilities":{"nobodysYet":true,"x":false,"y":null}`, `"runtimeConfig":{"portMappings":[{}],"ips":[],"dns":{}}`,
		`"runtimeConfig":{"ips":["10.0.0.1/24"],"x":7},"ipam":{"type":"static"}`, `"runtimeConfig":{"ips":{"v4":"10.0.0.1/24"}},"ipam":{"type":"other"}`, `"args":{"cni":{"x":7},"y":"z"}`, `"args":{"cni":null}`,
		`"prevResult":null`, `"dns":{"nameservers":["10.0.0.1"]}`, `"ipam":{}`, `"ipam":null`, `"cni.dev/valid-attachments":[]`, `"disableCheck":true`,
		`"disableGC":true`, `"deviceID":"0000:00:00.0"`, `"pciBusID":"x"`, `"resourceName":"y"`, `"ipMasq":false`, `"isGateway":false`, `"vlan":null`, `"mtu":null`,
	} {
		if _, err := parse(`,"bridge":"br0",`+members, ""); err != nil {
			t.Errorf("%s: %v", members, err)
		}
	}
}

// Those of the CNI conventions, and of runtimes, Multus and KubeVirt (CONVENTIONS.md;
// containerd and CRI-O; libcni).
func TestCapabilitiesOfOthersPass(t *testing.T) {
	for _, name := range []string{
		"portMappings", "ipRanges", "bandwidth", "dns", "ips", "mac", "infinibandGUID", "deviceID", "aliases", "cgroupPath",
		"podAnnotations", "io.kubernetes.cri.pod-annotations",
	} {
		if _, err := parse(fmt.Sprintf(`,"bridge":"br0","capabilities":{%q:true}`, name), ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadInputIsRefusedByName(t *testing.T) {
	for _, c := range []struct {
		members string
		kind    error
		says    []string // the key and its value, and whatever else must be said
	}{
		{`"brigde":"br0"`, config.ErrUnsupported, []string{`"brigde"`, `"br0"`}},
		{`"bridge":"br0","macTablemanager":"libvirt"`, config.ErrUnsupported, []string{`"macTablemanager"`, `"libvirt"`, `did you mean "macTableManager"`}},
		{`"bridge":"br0","macTableManger":"libvirt"`, config.ErrUnsupported, []string{`"macTableManger"`, `did you mean "macTableManager"`}},
		{`"bridge":"br0","colour":"red"`, config.ErrUnsupported, []string{`"colour"`, `tapbridge options`}},
		{`"plugins":[{"type":"tapbridge"}]`, config.ErrUnsupported, []string{`"plugins"`, "whole configuration list"}},
		{`"bridge":"br0","bridge":"br1"`, config.ErrInvalid, []string{`"bridge"`, "twice"}},
		{`"bridge":7`, config.ErrInvalid, []string{`"bridge"`, "7", "a string"}},
		{`"bridge":""`, config.ErrInvalid, []string{`"bridge"`, "missing"}},
		{`"mode":"tap"`, config.ErrInvalid, []string{`"bridge"`, "missing"}},
		{`"bridge":"a/b"`, config.ErrInvalid, []string{`"bridge"`, `"a/b"`}},
		{`"bridge":"br%d"`, config.ErrInvalid, []string{`"bridge"`, `"br%d"`}},
		{`"bridge":"br0","mode":"macvtap"`, config.ErrInvalid, []string{`"mode"`, `"macvtap"`, `"host-tap"`}},
		{`"bridge":"br0","mtu":"1500"`, config.ErrInvalid, []string{`"mtu"`, `"1500"`, "a whole number"}},
		{`"bridge":"br0","mtu":1500.5`, config.ErrInvalid, []string{`"mtu"`, "1500.5"}},
		{`"bridge":"br0","mtu":67`, config.ErrInvalid, []string{`"mtu"`, "67", "68"}},
		{`"bridge":"br0","mtu":0`, config.ErrInvalid, []string{`"mtu"`, "0", "68"}},
		{`"bridge":"br0","mtu":-1`, config.ErrInvalid, []string{`"mtu"`, "-1"}},
		{`"bridge":"br0","createBridge":"yes"`, config.ErrInvalid, []string{`"createBridge"`, `"yes"`, "true or false"}},
		{`"bridge":"br0","owner":-2`, config.ErrInvalid, []string{`"owner"`, "-2"}},
		{`"bridge":"br0","group":4294967295`, config.ErrInvalid, []string{`"group"`, "4294967295"}},
		{`"bridge":"br0","owner":-1,"group":-1`, config.ErrInvalid, []string{`"owner"`, "-1", "everybody"}},
		{`"bridge":"br0","mode":"veth","owner":1`, config.ErrInvalid, []string{`"owner"`, "1", `"veth"`}},
		{`"bridge":"br0","mode":"veth","multiQueue":true`, config.ErrInvalid, []string{`"multiQueue"`, "true", `"veth"`}},
		{`"bridge":"br0","macTableManager":"Libvirt"`, config.ErrInvalid, []string{`"macTableManager"`, `"Libvirt"`, `"kernel"`}},
		{`"bridge":"br0","fdb":"sticky"`, config.ErrInvalid, []string{`"fdb"`, `"sticky"`, `"macTableManager"`}},
		{`"bridge":"br0","macTableManager":"libvirt","fdb":"permanent"`, config.ErrInvalid, []string{`"fdb"`, `"permanent"`, `"roaming"`}},
		{`"bridge":"br0","mode":"veth","macTableManager":"libvirt","fdb":"follow"`, config.ErrInvalid, []string{`"fdb"`, `"follow"`, "tap"}},
		{`"bridge":"br0","macspoofchk":true`, config.ErrInvalid, []string{`"macspoofchk"`, "true", `"macTableManager"`}},
		{`"bridge":"br0","macspoofchk":true,"macTableManager":"libvirt","fdb":"roaming"`, config.ErrInvalid, []string{`"macspoofchk"`, "true", `"sticky"`}},
		{`"bridge":"br0","ipSpoofChk":true`, config.ErrInvalid, []string{`"ipSpoofChk"`, "true", `"ipam"`}},
		{`"bridge":"br0","ipSpoofChk":true,"ipam":{"type":"static"},"vlanTrunk":[{"id":5}]`, config.ErrInvalid, []string{`"ipSpoofChk"`, "true", `"vlanTrunk"`}},
		{`"bridge":"br0","ipSpoofChk":"yes"`, config.ErrInvalid, []string{`"ipSpoofChk"`, `"yes"`, "true or false"}},
		{`"bridge":"br0","mac":"01:00:5e:00:00:01"`, config.ErrInvalid, []string{`"mac"`, "01:00:5e:00:00:01", "multicast"}},
		{`"bridge":"br0","mac":"00:00:00:00:00:00"`, config.ErrInvalid, []string{`"mac"`, "all zero"}},
		{`"bridge":"br0","mac":12`, config.ErrInvalid, []string{`"mac"`, "12", "a string"}},
		{`"bridge":"br0","args":{"cni":{"mac":"x"}}`, config.ErrInvalid, []string{`"args.cni.mac"`, `"x"`}},
		{`"bridge":"br0","runtimeConfig":{"mac":"x"}`, config.ErrInvalid, []string{`"runtimeConfig.mac"`, `"x"`}},
		{`"bridge":"br0","runtimeConfig":[]`, config.ErrInvalid, []string{`"runtimeConfig"`, "[]", "an object"}},
		{`"bridge":"br0","ipam":{"subnet":"10.0.0.0/24"}`, config.ErrInvalid, []string{`"ipam"`, `"type"`}},
		{`"bridge":"br0","ipam":"host-local"`, config.ErrInvalid, []string{`"ipam"`, `"host-local"`}},
		{`"bridge":"br0","ipam":{"type":"dhcp"}`, config.ErrInvalid, []string{`"ipam"`, `"dhcp"`, `"veth"`, "the guest asks"}},
		{`"bridge":"br0","dns":{"domain":"x","nameserver":["10.0.0.1"]}`, config.ErrUnsupported, []string{`"dns"`, `"nameserver"`, `did you mean "nameservers"`}},
		{`"bridge":"br0","dns":{"Domain":"x"}`, config.ErrUnsupported, []string{`"dns"`, `{"Domain":"x"}`, `did you mean "domain"`}},
		{`"bridge":"br0","dns":{"servers":[]}`, config.ErrUnsupported, []string{`"dns"`, `"servers"`, `"options"`}},
		{`"bridge":"br0","dns":{"nameservers":"10.0.0.1"}`, config.ErrInvalid, []string{`"dns"`, `"nameservers": want a list`}},
		{`"bridge":"br0","capabilities":{"MAC":true}`, config.ErrUnsupported, []string{`"capabilities"`, `{"MAC":true}`, `did you mean "mac"`}},
		{`"bridge":"br0","capabilities":{"portMappings":true,"macs":true}`, config.ErrUnsupported, []string{`"capabilities"`, `"macs"`, `did you mean "mac"`}},
		{`"bridge":"br0","capabilities":{"bandwith":true}`, config.ErrUnsupported, []string{`"capabilities"`, `did you mean "bandwidth"`}},
		{`"bridge":"br0","capabilities":{"ip":true}`, config.ErrUnsupported, []string{`"capabilities"`, `did you mean "ips"`}},
		{`"bridge":"br0","capabilities":{"ipranges":true}`, config.ErrUnsupported, []string{`"capabilities"`, `did you mean "ipRanges"`}},
		{`"bridge":"br0","capabilities":5`, config.ErrInvalid, []string{`"capabilities"`, "5", "want an object"}},
		{`"bridge":"br0","capabilities":["mac"]`, config.ErrInvalid, []string{`"capabilities"`, `["mac"]`, "want an object"}},
		{`"bridge":"br0","capabilities":{"mac":"yes"}`, config.ErrInvalid, []string{`"capabilities.mac"`, `"yes"`, "want true or false"}},
		{`"bridge":"br0","args":"x"`, config.ErrInvalid, []string{`"args"`, `"x"`, "want an object"}},
		{`"bridge":"br0","args":{"cni":5}`, config.ErrInvalid, []string{`"args.cni"`, "5", "want an object"}},
		{`"bridge":"br0","runtimeConfig":{"ips":["1.2.3.4/24"]}`, config.ErrInvalid, []string{`"runtimeConfig.ips"`, `["1.2.3.4/24"]`, `it needs "ipam"`}},
		{`"bridge":"br0","ipam":{"type":"../x"}`, config.ErrInvalid, []string{`"ipam"`, `"../x"`, "CNI_PATH"}},
		{`"bridge":"all"`, config.ErrInvalid, []string{`"bridge"`, `"all"`, "no device"}},
		{`"bridge":"br0","dns":[]`, config.ErrInvalid, []string{`"dns"`, "[]"}},
		{`"bridge":"br0","prevResult":7`, config.ErrInvalid, []string{`"prevResult"`, "7"}},
		{`"bridge":"br0","prevResult":{"cniVersion":"1.1.0","ips":[{"address":"nonsense"}]}`, config.ErrInvalid, []string{`"prevResult"`, "nonsense"}},
		{`"bridge":"br0","vlan":0`, config.ErrInvalid, []string{`"vlan"`, "0", "1 to 4094"}},
		{`"bridge":"br0","vlan":4095`, config.ErrInvalid, []string{`"vlan"`, "4095", "1 to 4094"}},
		{`"bridge":"br0","vlan":-1`, config.ErrInvalid, []string{`"vlan"`, "-1", "1 to 4094"}},
		{`"bridge":"br0","vlan":"5"`, config.ErrInvalid, []string{`"vlan"`, `"5"`, "a whole number"}},
		{`"bridge":"br0","vlanTrunk":[null]`, config.ErrInvalid, []string{`"vlanTrunk"`, "null", `{"id": N}`}},
		{`"bridge":"br0","vlanTrunk":5`, config.ErrInvalid, []string{`"vlanTrunk"`, "5", "a list"}},
		{`"bridge":"br0","vlanTrunk":[{}]`, config.ErrInvalid, []string{`"vlanTrunk"`, "{}"}},
		{`"bridge":"br0","vlanTrunk":[{"id":0}]`, config.ErrInvalid, []string{`"vlanTrunk"`, `{"id":0}`, "1 to 4094"}},
		{`"bridge":"br0","vlanTrunk":[{"id":4095}]`, config.ErrInvalid, []string{`"vlanTrunk"`, `{"id":4095}`, "1 to 4094"}},
		{`"bridge":"br0","vlanTrunk":[{"ID":5}]`, config.ErrInvalid, []string{`"vlanTrunk"`, `{"ID":5}`}},
		{`"bridge":"br0","vlanTrunk":[{"id":5,"minID":6,"maxID":7}]`, config.ErrInvalid, []string{`"vlanTrunk"`, `"id" alone`}},
		{`"bridge":"br0","vlanTrunk":[{"minID":6}]`, config.ErrInvalid, []string{`"vlanTrunk"`, `{"minID":6}`}},
		{`"bridge":"br0","vlanTrunk":[{"minID":7,"maxID":6}]`, config.ErrInvalid, []string{`"vlanTrunk"`, "not smaller"}},
		{`"bridge":"br0","vlanTrunk":[{"minID":5,"maxID":9},{"id":7}]`, config.ErrInvalid, []string{`"vlanTrunk"`, `{"id":7}`, "overlaps with VLAN 5-9"}},
		{`"bridge":"br0","vlan":7,"vlanTrunk":[{"id":7}]`, config.ErrInvalid, []string{`"vlanTrunk"`, `{"id":7}`, "overlaps with VLAN 7"}},
		{`"bridge":"br0","preserveDefaultVlan":true`, config.ErrInvalid, []string{`"preserveDefaultVlan"`, "true", `"vlan"`}},
		{`"bridge":"br0","bandwidth":5`, config.ErrInvalid, []string{`"bandwidth"`, "5", "an object"}},
		{`"bridge":"br0","bandwidth":{"ingressRate":1000000}`, config.ErrInvalid, []string{`"bandwidth"`, `"ingressRate" needs "ingressBurst"`}},
		{`"bridge":"br0","bandwidth":{"egressBurst":1000000}`, config.ErrInvalid, []string{`"bandwidth"`, `"egressBurst" needs "egressRate"`}},
		{`"bridge":"br0","bandwidth":{"ingressRate":-1}`, config.ErrInvalid, []string{`"bandwidth"`, "-1", `"ingressRate": want`, "not negative"}},
		{`"bridge":"br0","bandwidth":{"ingressRate":18446744073709551616,"ingressBurst":80000}`, config.ErrInvalid, []string{`"ingressRate": want`, "below 2^64"}},
		{`"bridge":"br0","bandwidth":{"ingressRate":7,"ingressBurst":80000}`, config.ErrInvalid, []string{`"ingressRate": want 8 to 1000000000000 bit/s`}},
		{`"bridge":"br0","bandwidth":{"ingressRate":1000000000001000,"ingressBurst":80000}`, config.ErrInvalid, []string{`"ingressRate": want 8 to 1000000000000 bit/s`}},
		{`"bridge":"br0","bandwidth":{"egressRate":8000000,"egressBurst":34359738368}`, config.ErrInvalid, []string{`"egressBurst": want at most 34359738360 bits`}},
		{`"bridge":"br0","bandwidth":{"ingressRate":8,"IngressRate":8}`, config.ErrInvalid, []string{`"ingressRate" stands twice`}},
		{`"bridge":"br0","bandwidth":{"INGRESSRate":8}`, config.ErrUnsupported, []string{`"bandwidth"`, `"INGRESSRate"`, `did you mean "ingressRate"`}},
		{`"bridge":"br0","bandwidth":{"ingressRte":8}`, config.ErrUnsupported, []string{`"bandwidth"`, `"ingressRte"`, `did you mean "ingressRate"`}},
		{`"bridge":"br0","bandwidth":{"unshapedSubnets":["10.0.0.0/8"]}`, config.ErrUnsupported, []string{`"bandwidth"`, `"unshapedSubnets"`, `"egressBurst"`}},
		{`"bridge":"br0","runtimeConfig":{"bandwidth":{"IngressRate":8000000}}`, config.ErrInvalid, []string{`"runtimeConfig.bandwidth"`, `"ingressRate" needs "ingressBurst"`}},
		{`"bridge":"br0","vmconf":true`, config.ErrInvalid, []string{`"vmconf"`, "true", `"ipam"`}},
		{`"bridge":"br0","vmconf":true,"mode":"host-tap"`, config.ErrInvalid, []string{`"vmconf"`, "true", `"tap"`}},
		{`"bridge":"br0","dan":true`, config.ErrInvalid, []string{`"dan"`, "true", `"host-tap"`}},
		{`"bridge":"br0","promote":1`, config.ErrInvalid, []string{`"promote"`, "1", "true or false"}},
		{`"bridge":"br0","mode":"veth","promote":true`, config.ErrInvalid, []string{`"promote"`, "true", `mode "tap"`, `"veth"`}},
		{`"bridge":"br0","mode":"host-tap","promote":true`, config.ErrInvalid, []string{`"promote"`, "true", `mode "tap"`, `"host-tap"`}},
		{`"bridge":"br0","mode":"veth","dan":true`, config.ErrInvalid, []string{`"dan"`, "true", `"host-tap"`}},
		{`"bridge":"br0","dan":"yes"`, config.ErrInvalid, []string{`"dan"`, `"yes"`, "true or false"}},
		{`"bridge":"br0","selinuxContext":""`, config.ErrInvalid, []string{`"selinuxContext"`, `""`, "system_u:"}},
		{`"bridge":"br0","selinuxContext":"a:b:c\n"`, config.ErrInvalid, []string{`"selinuxContext"`, `"a:b:c\n"`}},
		{`"bridge":"br0","mode":"veth","selinuxContext":"a:b:c"`, config.ErrInvalid, []string{`"selinuxContext"`, `"a:b:c"`, "no tap"}},
		{`"bridge":"br0","isGateway":true`, config.ErrInvalid, []string{`"isGateway"`, "true", `"ipam"`}},
		{`"bridge":"br0","isDefaultGateway":true`, config.ErrInvalid, []string{`"isDefaultGateway"`, "true", `"ipam"`}},
		{`"bridge":"br0","ipMasq":true`, config.ErrInvalid, []string{`"ipMasq"`, "true", `"ipam"`}},
		{`"bridge":"br0","ipMasq":"yes"`, config.ErrInvalid, []string{`"ipMasq"`, `"yes"`, "true or false"}},
		{`"bridge":"br0","forceAddress":true`, config.ErrInvalid, []string{`"forceAddress"`, "true", `"isGateway"`}},
		{`"bridge":"br0","ipam":{"type":"x"},"isGateway":true,"vlan":5`, config.ErrInvalid, []string{`"isGateway"`, `"vlan"`}},
		{`"bridge":"br0","ipam":{"type":"x"},"isGateway":true,"vlanTrunk":[{"id":5}]`, config.ErrInvalid, []string{`"isGateway"`, `"preserveDefaultVlan"`}},
		{`"bridge":"br0","ipam":{"type":"x"},"isGateway":true,"vlan":5,"preserveDefaultVlan":true`, config.ErrInvalid, []string{`"isGateway"`, `"vlan"`}},
		{`"bridge":"br0","ipam":{"type":"dhcp"},"mode":"veth","isDefaultGateway":true`, config.ErrInvalid, []string{`"isDefaultGateway"`, `"dhcp"`}},
	} {
		_, err := parse(","+c.members, "")
		if !errors.Is(err, c.kind) {
			t.Errorf("%s: error %v, want %v", c.members, err, c.kind)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: error %q does not say %s", c.members, err, s)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %q is more than a line", c.members, err)
		}
	}
}

func TestNotAnObject(t *testing.T) {
	for _, stdin := range []string{"", " ", "{", "[]", "null", "7", `{"a":1`, `{"a":1}{}`, `{"a":1} x`, `{"a":}`, `{7:1}`, `{"cniVersion":7}`} {
		if _, err := config.ParseHeader([]byte(stdin)); !errors.Is(err, config.ErrDecode) {
			t.Errorf("ParseHeader(%q): %v, want ErrDecode", stdin, err)
		}
	}
	for _, stdin := range []string{"{", `{"a":1`, `{"a":{"b"`, `{"a":"x`} {
		if _, err := config.ParseHeader([]byte(stdin)); err == nil || !strings.Contains(err.Error(), "it ends too early") {
			t.Errorf("ParseHeader(%q): %v", stdin, err)
		}
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{"vms": true, "0.a-b_c": true, "": false, "a/b": false, "-a": false, "a b": false, "ä": false} {
		members, err := json.Marshal(map[string]string{"name": name, "bridge": "br0"})
		if err != nil {
			t.Fatal(err)
		}
		h, err := config.ParseHeader(members)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Parse(""); (err == nil) != ok {
			t.Errorf("network name %q: %v", name, err)
		}
	}
}

// The last of the sources that are given wins.
func TestMACSources(t *testing.T) {
	addr := func(n int) string { return fmt.Sprintf("02:00:00:00:00:%02d", n) }
	members := []string{
		fmt.Sprintf(`,"mac":%q`, addr(1)),
		"",
		fmt.Sprintf(`,"args":{"cni":{"mac":%q},"other":1}`, addr(3)),
		fmt.Sprintf(`,"runtimeConfig":{"mac":%q}`, addr(4)),
	}
	for sources := range 16 {
		config, args, want := `,"bridge":"br0"`, "IgnoreUnknown=1;K8S_POD_NAME=a;K8S_POD_NAME=a", "00:00:00:00:00:00"
		for i, m := range members {
			if sources&(1<<i) != 0 {
				config, want = config+m, addr(i+1)
			}
		}
		if sources&2 != 0 {
			args += ";MAC=" + addr(2)
		}
		c, err := parse(config, args)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.MAC.String(); got != want {
			t.Errorf("sources %04b: MAC %s, want %s", sources, got, want)
		}
	}
}

// Both runtimes' spellings are read, and an administrator's limit is not lifted
// from a pod.
func TestBandwidth(t *testing.T) {
	kubelet := `"runtimeConfig":{"bandwidth":{"IngressRate":1000000,"IngressBurst":4294967295,"EgressRate":0,"EgressBurst":0}}`
	asked := config.Bandwidth{ToGuest: shape.Limit{Rate: 125000, Burst: 536870911}}
	for members, want := range map[string]config.Bandwidth{
		`"bandwidth":{"ingressRate":8000000,"ingressBurst":800000,"egressRate":16000000,"egressBurst":34359738360}`: {
			ToGuest: shape.Limit{Rate: 1e6, Burst: 1e5}, FromGuest: shape.Limit{Rate: 2e6, Burst: 1<<32 - 1},
		},
		kubelet: asked,
		`"runtimeConfig":{"bandwidth":{"ingressRate":1000000,"ingressBurst":4294967295}}`: asked,
		`"bandwidth":null,` + kubelet:                                        asked,
		`"bandwidth":{"egressRate":8000000,"egressBurst":800000},` + kubelet: {FromGuest: shape.Limit{Rate: 1e6, Burst: 1e5}},
		`"bandwidth":{},` + kubelet:                                          {},
		`"runtimeConfig":{"bandwidth":null}`:                                 {},
	} {
		c, err := parse(`,"bridge":"br0",`+members, "")
		if err != nil {
			t.Errorf("%s: %v", members, err)
			continue
		}
		if diff := cmp.Diff(want, c.Bandwidth); diff != "" {
			t.Errorf("%s (-want +got):\n%s", members, diff)
		}
	}
}

func TestArgs(t *testing.T) {
	for _, args := range []string{"K8S_POD_NAME=a", "MAC", "MAC=02:00:00:00:00:01;x=y", "IgnoreUnknown=perhaps"} {
		if _, err := parse(`,"bridge":"br0"`, args); !errors.Is(err, config.ErrArgs) {
			t.Errorf("CNI_ARGS %q: %v, want ErrArgs", args, err)
		}
	}
	if _, err := parse(`,"bridge":"br0"`, "MAC=01:00:00:00:00:01"); !errors.Is(err, config.ErrInvalid) {
		t.Errorf("a multicast MAC in CNI_ARGS: %v, want ErrInvalid", err)
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		members, ifName string
		says            string
	}{
		{`,"bridge":"br0","mtu":1501`, "net1", `key "mtu" has value 1501: bridge "br0" has MTU 1500`},
		{`,"bridge":"br0","bandwidth":{"egressRate":8000000,"egressBurst":12136}`, "net1", `key "bandwidth.egressBurst" has value 12136: that is less than a frame of bridge "br0": want at least 12144 bits`},
		{`,"bridge":"br0","runtimeConfig":{"bandwidth":{"IngressRate":8000000,"IngressBurst":100}}`, "net1", `key "runtimeConfig.bandwidth.ingressBurst" has value 100: `},
		{`,"bridge":"br0"`, "tap0", `CNI_IFNAME "tap0" is the name that its own tap gets`},
	} {
		cfg, err := parse(c.members, "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = cfg.Plan(port.ID{ContainerID: "c", IfName: c.ifName}, bridge.Bridge{Name: "br0", MTU: 1500})
		if !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %s", c.members, err, c.says)
		}
	}
}

func TestDANNeedsAnIDThatIsRecorded(t *testing.T) {
	cfg, err := parse(`,"bridge":"br0","mode":"host-tap","dan":true`, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = cfg.Plan(port.ID{ContainerID: strings.Repeat("c", 300), IfName: "net1"}, bridge.Bridge{Name: "br0", MTU: 1500})
	if !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), `"dan"`) {
		t.Error(err)
	}
}

func TestAttachments(t *testing.T) {
	a, b := port.ID{ContainerID: "a", IfName: "eth0"}, port.ID{ContainerID: "b", IfName: "net1"}
	for _, c := range []struct {
		members string
		valid   []port.ID
		known   bool
	}{
		{``, nil, false},
		{`,"cni.dev/valid-attachments":null`, nil, true},
		{`,"cni.dev/attachments":[]`, nil, true},
		{`,"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"cni.dev/attachments":[{"containerID":"b","ifname":"net1"}]`, []port.ID{a, b}, true},
	} {
		h, err := config.ParseHeader([]byte(head + c.members + "}"))
		if err != nil {
			t.Fatal(err)
		}
		valid, known, err := h.Attachments()
		if err != nil || known != c.known || !cmp.Equal(valid, c.valid) {
			t.Errorf("%s: %v, %v, %v; want %v, %v", c.members, valid, known, err, c.valid, c.known)
		}
	}
	for _, bad := range []string{`{}`, `7`, `[{"id":"c1","if":"net1"}]`, `[{"containerID":"c1"}]`, `[null]`} {
		h, err := config.ParseHeader([]byte(head + `,"cni.dev/valid-attachments":` + bad + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, known, err := h.Attachments(); !errors.Is(err, config.ErrInvalid) || known {
			t.Errorf("attachments %s: known %v, %v", bad, known, err)
		}
	}
}

// A bridge is made VLAN-aware for VLANs in any case, and for libvirt's table where
// the kernel can.
func TestNewBridge(t *testing.T) {
	for members, want := range map[string]struct{ aware, whereItCan bool }{
		``:                             {false, false},
		`,"macTableManager":"kernel"`:  {false, false},
		`,"macTableManager":"libvirt"`: {false, true},
		`,"macTableManager":"libvirt","fdb":"roaming"`: {false, true},
		`,"vlan":42`:              {true, true},
		`,"vlanTrunk":[{"id":5}]`: {true, true},
	} {
		c, err := parse(`,"bridge":"br0","createBridge":true`+members, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.NewBridge(false).VLANAware; got != want.aware {
			t.Errorf("%s: VLAN-aware %v in a kernel that cannot", members, got)
		}
		if got := c.NewBridge(true).VLANAware; got != want.whereItCan {
			t.Errorf("%s: VLAN-aware %v in a kernel that can", members, got)
		}
	}
}
