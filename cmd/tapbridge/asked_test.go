package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// What `tapbridge ports -o json` says of options, VLANs and limits is what gives such a port when it is put into a configuration.
func TestJSONSaysWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	aware := bridge.Bridge{Name: "br0", Index: 1, MTU: 1500, VLANAware: true, DefaultPVID: 1}
	plain := bridge.Bridge{Name: "br0", Index: 1, MTU: 1500}
	const kernel = `"macTableManager":"kernel","fdb":null,"multiQueue":false,"owner":107,"group":107,`
	const off = kernel + `"macspoofchk":false,"ipSpoofChk":false,"portIsolation":false,"hairpinMode":false`
	for _, c := range []struct {
		on          bridge.Bridge
		given, want string
	}{
		{plain, ``, off + `,"vlan":null,"vlanTrunk":[],"preserveDefaultVlan":false,"bandwidth":null,"dan":false,"promote":false,"ipMasq":false`},
		{aware, ``, off + `,"vlan":1,"vlanTrunk":[],"preserveDefaultVlan":false,"bandwidth":null,"dan":false,"promote":false,"ipMasq":false`},
		{aware, `,"vlan":42`, off + `,"vlan":42,"vlanTrunk":[],"preserveDefaultVlan":false,"bandwidth":null,"dan":false,"promote":false,"ipMasq":false`},
		{
			aware, `,"vlan":42,"vlanTrunk":[{"id":5},{"minID":10,"maxID":20}],"preserveDefaultVlan":true,"mode":"host-tap","dan":true`,
			off + `,"vlan":42,"vlanTrunk":[{"id":5},{"minID":10,"maxID":20}],"preserveDefaultVlan":true,"bandwidth":null,"dan":true,"promote":false,"ipMasq":false`,
		},
		{
			plain, `,"macTableManager":"libvirt","macspoofchk":true,"portIsolation":true`,
			`"macTableManager":"libvirt","fdb":"sticky","multiQueue":false,"owner":107,"group":107,"macspoofchk":true,"ipSpoofChk":false,"portIsolation":true,"hairpinMode":false,"vlan":null,"vlanTrunk":[],"preserveDefaultVlan":false,"bandwidth":null,"dan":false,"promote":false,"ipMasq":false`,
		},
		{
			plain, `,"ipam":{"type":"static"},"ipSpoofChk":true,"hairpinMode":true`,
			kernel + `"macspoofchk":false,"ipSpoofChk":true,"portIsolation":false,"hairpinMode":true,"vlan":null,"vlanTrunk":[],"preserveDefaultVlan":false,"bandwidth":null,"dan":false,"promote":false,"ipMasq":false`,
		},
		{plain, `,"promote":true`, off + `,"vlan":null,"vlanTrunk":[],"preserveDefaultVlan":false,"bandwidth":null,"dan":false,"promote":true,"ipMasq":false`},
		{
			plain, `,"macTableManager":"libvirt","fdb":"roaming","multiQueue":true,"owner":0,"group":-1,"ipam":{"type":"static"},"isGateway":true,"ipMasq":true`,
			`"macTableManager":"libvirt","fdb":"roaming","multiQueue":true,"owner":0,"group":-1,"macspoofchk":false,"ipSpoofChk":false,"portIsolation":false,"hairpinMode":false,"vlan":null,"vlanTrunk":[],"preserveDefaultVlan":false,"bandwidth":null,"dan":false,"promote":false,"ipMasq":true`,
		},
		{
			plain, `,"mode":"veth"`,
			strings.ReplaceAll(off, "107", "null") + `,"vlan":null,"vlanTrunk":[],"preserveDefaultVlan":false,"bandwidth":null,"dan":false,"promote":false,"ipMasq":false`,
		},
		{aware, `,"vlanTrunk":[{"id":5}]`, off + `,"vlan":null,"vlanTrunk":[{"id":5}],"preserveDefaultVlan":false,"bandwidth":null,"dan":false,"promote":false,"ipMasq":false`},
		{
			plain, `,"bandwidth":{"egressRate":8000,"egressBurst":800000}`,
			off + `,"vlan":null,"vlanTrunk":[],"preserveDefaultVlan":false,"bandwidth":{"ingressRate":0,"ingressBurst":0,"egressRate":8000,"egressBurst":800000},"dan":false,"promote":false,"ipMasq":false`,
		},
	} {
		a := plan(t, c.on, c.given)
		got, err := json.Marshal(describe(attach.Inspected{Attached: attach.Attached{Attachment: a}}).asked)
		if err != nil {
			t.Fatal(err)
		}
		if want := "{" + c.want + "}"; string(got) != want {
			t.Errorf("asked for %s, JSON says\n%s, want\n%s", c.given, got, want)
		}
	}
}

func plan(t *testing.T, on bridge.Bridge, given string) port.Attachment {
	t.Helper()
	h, err := config.ParseHeader([]byte(`{"cniVersion":"1.1.0","name":"vms","bridge":"br0"` + given + "}"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Parse("")
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.Plan(port.ID{ContainerID: "4f5c", IfName: "net1"}, on)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// It says so of a real port, and a key of the row that is one of the configuration means the same.
func TestPortsTellOfLimits(t *testing.T) {
	t.Parallel()
	host, pod := nstest.New(t), nstest.New(t)
	nstest.Bridge(t, host, "br0", "02:00:00:00:00:01")
	env := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "4f5c", "CNI_NETNS": pod.Path, "CNI_IFNAME": "net1"}
	const bits = `{"ingressRate":8000000,"ingressBurst":1600000,"egressRate":16000000,"egressBurst":3200000}`
	if code, stdout, _ := call(host, env, `{"cniVersion":"1.1.0","name":"vms","bridge":"br0","bandwidth":`+bits+"}"); code != 0 {
		t.Fatal(stdout)
	}
	_, stdout, _ := call(host, nil, "", "ports", "-o", "json")
	var rows []map[string]json.RawMessage
	if err := json.Unmarshal([]byte(stdout), &rows); err != nil || len(rows) != 1 {
		t.Fatalf("%v: %s", err, stdout)
	}
	var want, got any
	if err := json.Unmarshal([]byte(bits), &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(rows[0]["bandwidth"], &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("bandwidth (-want +got):\n%s", diff)
	}
	for _, key := range []string{"macspoofchk", "ipSpoofChk", "portIsolation", "hairpinMode", "vlan", "vlanTrunk", "preserveDefaultVlan", "bandwidth", "dan", "promote", "macTableManager", "fdb", "multiQueue", "owner", "group", "ipMasq"} {
		known := slices.ContainsFunc(config.Keys, func(k config.Key) bool { return k.Name == key })
		if _, there := rows[0][key]; !there || !known {
			t.Errorf("%q is in the row: %v, a key of the configuration: %v", key, there, known)
		}
	}
}
