package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// call runs the command in the host's namespace with an environment of its own.
func call(host *nstest.NS, env map[string]string, stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	do := func() {
		code = run(args, func(name string) string { return env[name] }, strings.NewReader(stdin), &out, &errs)
	}
	if host == nil {
		do()
	} else {
		host.Do(do)
	}
	return code, out.String(), errs.String()
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		args         []string
		env          map[string]string
		code         int
		says, saysTo string // stdout, stderr
	}{
		{nil, nil, 0, "tapbridge ports", ""},
		{nil, map[string]string{"CNI_PATH": "/opt/cni/bin"}, 0, "tapbridge ports", ""},
		{nil, map[string]string{"CNI_NETNS": "/x"}, 1, `"msg": "invalid environment: CNI_COMMAND is missing"`, ""},
		{[]string{"help"}, nil, 0, "tapbridge options", ""},
		{[]string{"version"}, nil, 0, "CNI 0.3.0 0.3.1 0.4.0 1.0.0 1.1.0", ""},
		{[]string{"options"}, nil, 0, "macTableManager (kernel, libvirt; default: kernel)", ""},
		{[]string{"portz"}, nil, 2, "", `unknown command "portz"`},
		{[]string{"version", "x"}, nil, 2, "", `version takes no ["x"]`},
		{[]string{"ports", "-o", "yaml"}, nil, 2, "", `tapbridge: ports takes no ["-o" "yaml"]; usage: tapbridge ports`},
		{[]string{"ports", "br0"}, nil, 2, "", `ports takes no ["br0"]; usage`},
		{[]string{"options", "--help"}, nil, 0, "tapbridge options", ""},
		{[]string{"ports", "-h"}, nil, 0, "usage: tapbridge ports", ""},
	} {
		code, stdout, stderr := call(nil, c.env, "", c.args...)
		if code != c.code || !strings.Contains(stdout, c.says) || !strings.Contains(stderr, c.saysTo) || c.says == "" && stdout != "" || c.saysTo == "" && stderr != "" {
			t.Errorf("%q with %v: code %d, stdout %q, stderr %q", c.args, c.env, code, stdout, stderr)
		}
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	host, pod := nstest.New(t), nstest.New(t)
	nstest.Bridge(t, host, "br0", "02:00:00:00:00:01")
	add := func(mode, ifName, guest string) {
		t.Helper()
		env := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "4f5c", "CNI_NETNS": pod.Path, "CNI_IFNAME": ifName}
		stdin := `{"cniVersion":"1.1.0","name":"vms","bridge":"br0","macTableManager":"libvirt","mode":"` + mode + `","mac":"` + guest + `"}`
		if code, stdout, stderr := call(host, env, stdin); code != 0 {
			t.Fatalf("ADD: %s%s", stdout, stderr)
		}
	}
	wantTable := func(code int, want string) {
		t.Helper()
		got, stdout, stderr := call(host, nil, "", "ports")
		if diff := cmp.Diff(strings.TrimLeft(want, "\n"), stdout); diff != "" || got != code || stderr != "" {
			t.Errorf("code %d, want %d; stderr %q; (-want +got):\n%s", got, code, stderr, diff)
		}
	}
	wantTable(0, `
PORT  BRIDGE  MODE  REDIRECT  TABLE  GUEST MAC  CARRIER  NETWORK  CONTAINER  IFNAME  STATE
`)
	add("tap", "net1", "52:54:00:00:00:01")
	add("veth", "net2", "52:54:00:00:00:02")
	wantTable(0, `
PORT            BRIDGE  MODE  REDIRECT  TABLE   GUEST MAC          CARRIER  NETWORK  CONTAINER  IFNAME  STATE
tb23cde16daab7  br0     tap   bpf       sticky  52:54:00:00:00:01  no       vms      4f5c       net1    ok
tb140d8a57b0ae  br0     veth            sticky  52:54:00:00:00:02  yes      vms      4f5c       net2    ok
`)
	nstest.OpenTap(t, pod, "tap1")
	host.Run(t, "bridge", "link", "set", "dev", "tb23cde16daab7", "learning", "on")
	host.Run(t, "ip", "link", "set", "tb140d8a57b0ae", "alias", "mine")
	wantTable(1, `
PORT            BRIDGE  MODE  REDIRECT  TABLE   GUEST MAC          CARRIER  NETWORK  CONTAINER  IFNAME  STATE
tb23cde16daab7  br0     tap   bpf       sticky  52:54:00:00:00:01  yes      vms      4f5c       net1    drift (1)
tb140d8a57b0ae                                                     ?                                    drift (1)
! tb23cde16daab7: learning is on, want off
! tb140d8a57b0ae: alias is "mine", want the record of an attachment: it cannot be told whose port this is
`)
	_, stdout, _ := call(host, nil, "", "ports", "-o", "json")
	var rows []row
	if err := json.Unmarshal([]byte(stdout), &rows); err != nil || len(rows) != 2 {
		t.Fatalf("%v: %s", err, stdout)
	}
	if r := rows[0]; r.Port != "tb23cde16daab7" || r.Carrier == nil || !*r.Carrier || len(r.Drift) != 1 || r.TapMAC != "fe:54:00:00:00:01" || r.Redirect != "bpf" {
		t.Errorf("JSON says %+v", r)
	}
	if r := rows[1]; r.Carrier != nil || r.MACTable != "" || r.Owner != nil {
		t.Errorf("of a port without a record JSON says %+v", r)
	}
	host.Run(t, "ip", "link", "set", "br0", "down")
	if code, stdout, _ := call(host, nil, "", "ports"); code != 1 || !strings.Contains(stdout, "! tb23cde16daab7: bridge br0 is down") {
		t.Errorf("with the bridge down: code %d\n%s", code, stdout)
	}
}

// What KubeVirt's binding does to the pod interface of mode veth is shown, and nothing is
// wrong by it.
func TestPortsLeaveThePodToKubeVirt(t *testing.T) {
	t.Parallel()
	host, pod := nstest.New(t), nstest.New(t)
	nstest.Bridge(t, host, "br0", "02:00:00:00:00:01")
	env := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "4f5c", "CNI_NETNS": pod.Path, "CNI_IFNAME": "net1"}
	if code, stdout, _ := call(host, env, `{"cniVersion":"1.1.0","name":"vms","bridge":"br0","mode":"veth","macTableManager":"libvirt"}`); code != 0 {
		t.Fatalf("ADD: %s", stdout)
	}
	for _, command := range []string{
		"ip link set net1 down", "ip link set net1 name net1-nic address 02:00:00:00:00:99", "ip link add k6t-net1 type bridge",
		"ip link set net1-nic master k6t-net1 up",
	} {
		words := strings.Fields(command)
		pod.Run(t, words[0], words[1:]...)
	}
	code, stdout, _ := call(host, nil, "", "ports")
	want := `? tb23cde16daab7: in the pod, as KubeVirt's bindings have it: pod interface "net1" is missing`
	if code != 0 || !strings.Contains(stdout, "ok on the host") || !strings.Contains(stdout, want) {
		t.Errorf("ports: code %d\n%s", code, stdout)
	}
	code, stdout, _ = call(host, nil, "", "doctor", "br0")
	if want := `note  port tb23cde16daab7: in the pod, pod interface "net1" is missing`; code != 0 || !strings.Contains(stdout, want) {
		t.Errorf("doctor: code %d\n%s", code, stdout)
	}
	host.Run(t, "bridge", "link", "set", "dev", "tb23cde16daab7", "learning", "on")
	if code, stdout, _ := call(host, nil, "", "ports"); code != 1 || !strings.Contains(stdout, "drift (1)") || !strings.Contains(stdout, want) {
		t.Errorf("ports of one with a drift: code %d\n%s", code, stdout)
	}
}

// With libvirt's table a bridge is made VLAN-aware where the kernel can, and plain
// where it cannot; with VLANs given there it is refused. CHECK agrees with either.
func TestCreatedBridgeIsVLANAwareWhereTheKernelCan(t *testing.T) {
	t.Parallel()
	can := nstest.HasVLANs(t)
	for members, want := range map[string]struct{ made, aware bool }{
		`"macTableManager":"kernel"`:                  {true, false},
		`"macTableManager":"libvirt"`:                 {true, can},
		`"macTableManager":"libvirt","fdb":"roaming"`: {true, can},
		`"macTableManager":"libvirt","vlan":42`:       {can, can},
		`"vlan":42`:                                   {can, can},
	} {
		host, pod := nstest.New(t), nstest.New(t)
		env := map[string]string{"CNI_COMMAND": "STATUS", "CNI_CONTAINERID": "4f5c", "CNI_NETNS": pod.Path, "CNI_IFNAME": "net1"}
		conf := `{"cniVersion":"1.1.0","name":"vms","bridge":"br0","createBridge":true,` + members
		if code, stdout, _ := call(host, env, conf+"}"); (code == 0) != want.made {
			t.Errorf("%s: STATUS: code %d %s", members, code, stdout)
		}
		env["CNI_COMMAND"] = "ADD"
		code, result, _ := call(host, env, conf+"}")
		if !want.made && (code == 0 || !strings.Contains(result, "VLAN filtering: not supported by this kernel")) || want.made && code != 0 {
			t.Errorf("%s: ADD: %s", members, result)
		}
		if bridges := host.Run(t, "ip", "-d", "link", "show", "type", "bridge"); strings.Contains(bridges, "br0") != want.made ||
			strings.Contains(bridges, "vlan_filtering 1") != want.aware {
			t.Errorf("%s: want a bridge: %v, VLAN-aware: %v; there is %q", members, want.made, want.aware, bridges)
		}
		env["CNI_COMMAND"] = "CHECK"
		if code, stdout, _ := call(host, env, conf+`,"prevResult":`+result+"}"); want.made && code != 0 {
			t.Errorf("%s: CHECK: %s", members, stdout)
		}
	}
}

// An uplink that is promiscuous is no drift, but it is said once, with what keeps
// it so.
func TestPortsTellOfUplinks(t *testing.T) {
	t.Parallel()
	host, pod := nstest.New(t), nstest.New(t)
	nstest.Bridge(t, host, "br0", "02:00:00:00:00:01")
	host.Run(t, "ip", "link", "add", "ens3", "type", "ifb")
	host.Run(t, "ip", "link", "set", "ens3", "master", "br0", "up")
	for _, ifName := range []string{"net1", "net2"} {
		env := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "4f5c", "CNI_NETNS": pod.Path, "CNI_IFNAME": ifName}
		if code, stdout, _ := call(host, env, `{"cniVersion":"1.1.0","name":"vms","bridge":"br0"}`); code != 0 {
			t.Fatalf("ADD: %s", stdout)
		}
	}
	because := []string{"br0 is not VLAN-aware", "tb23cde16daab7 learns and floods", "tb140d8a57b0ae learns and floods"}
	code, stdout, stderr := call(host, nil, "", "ports")
	if want := "net2    ok\nbr0: uplink ens3 is promiscuous: " + strings.Join(because, ", ") + "\n"; code != 0 || !strings.HasSuffix(stdout, want) {
		t.Errorf("code %d, want 0 and %s; %s\n%s", code, want, stderr, stdout)
	}
	_, stdout, _ = call(host, nil, "", "ports", "-o", "json")
	var rows []row
	if err := json.Unmarshal([]byte(stdout), &rows); err != nil || len(rows) != 2 {
		t.Fatalf("%v: %s", err, stdout)
	}
	for _, r := range rows {
		if diff := cmp.Diff([]uplink{{Name: "ens3", Promiscuous: true, Because: because}}, r.Uplinks, cmp.AllowUnexported(uplink{})); diff != "" {
			t.Errorf("JSON (-want +got):\n%s", diff)
		}
	}
}
