package plugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// What somebody does to the node while the delegate is asked is mended, or told as what it
// is: the delegate is named where it, or its answer, is to blame.
func TestWhileTheDelegateIsAsked(t *testing.T) {
	id := port.ID{ContainerID: "c1", IfName: "net1"}
	const one = `"ips":[{"address":"10.0.0.2/24"}]`
	for name, c := range map[string]struct {
		meanwhile, answer string
		says              string // "": it succeeds
	}{
		"flushed":    {"nft flush ruleset", one, ""},
		"gone":       {"ip link del " + id.PortName(), one, `"msg": "port `},
		"no address": {":", `"ips":[]`, `"msg": "IPAM delegate \"told\": `},
		"no network": {":", `"ips":[{"address":"10.0.0.2/24"}],"routes":[{"dst":"x"}]`, `"msg": "IPAM delegate \"told\": `},
	} {
		t.Run(name, func(t *testing.T) {
			host, pod, folder := nstest.New(t), nstest.New(t), t.TempDir()
			nstest.Bridge(t, host, "br0", "02:00:00:00:00:01")
			script := "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = ADD ] || exit 0\n" + c.meanwhile + ` >&2; echo '{"cniVersion":"1.1.0",` + c.answer + "}'\n"
			if err := os.WriteFile(filepath.Join(folder, "told"), []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			for k, v := range map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": id.ContainerID, "CNI_NETNS": pod.Path, "CNI_IFNAME": id.IfName, "CNI_PATH": folder} {
				t.Setenv(k, v)
			}
			var out strings.Builder
			host.Do(func() {
				stdin := `{"cniVersion":"1.1.0","name":"lan","bridge":"br0","mode":"veth","mac":"52:54:00:12:34:56","macTableManager":"libvirt","macspoofchk":true,"ipSpoofChk":true,"ipam":{"type":"told"}}`
				code := Run(os.Getenv, strings.NewReader(stdin), &out, &out)
				if (code == 0) != (c.says == "") || !strings.Contains(out.String(), c.says) {
					t.Errorf("code %d, want %s: %s", code, c.says, &out)
				}
				conn, err := rtnl.Open()
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				all, err := guard.Observe(conn)
				want := guard.Guard{}
				if c.says == "" {
					want = guard.Guard{MACs: "52:54:00:12:34:56", Addresses: "10.0.0.2", Whole: true}
				}
				if all[id.PortName()] != want || err != nil {
					t.Errorf("guard is %+v, want %+v; %v", all[id.PortName()], want, err)
				}
			})
		})
	}
}
