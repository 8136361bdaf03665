package conformance

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/firecracker-microvm/firecracker-go-sdk/cni/vmconf"
)

// example is the tapbridge plugin of a file of examples/, as a runtime hands it over.
func example(t *testing.T, file string) conf {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "examples", file))
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		CNIVersion, Name string
		Plugins          []conf
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	return list.Plugins[0].with(conf{"cniVersion": list.CNIVersion, "name": list.Name})
}

// private is a mount namespace in which host-local has no addresses given out yet, and Kata no files.
const private = "mount -t tmpfs none /var/lib; mount -t tmpfs none /run"

// firecracker-go-sdk reads what examples/firecracker.conflist gives, as docs/firecracker.md promises.
func TestExampleOfFirecracker(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := example(t, "firecracker.conflist")
	added := n.prepare("ADD", c).masked(private).run().ok()
	result := &types100.Result{}
	added.decode(result)
	got, err := vmconf.StaticNetworkConfFrom(result, "c1")
	if err != nil {
		t.Fatalf("the SDK refuses the result: %v\n%s", err, added.stdout)
	}
	if got.TapName != "tap1" || got.VMMacAddr == "" || got.IPBootParam() != "10.56.0.2::10.56.0.1:255.255.255.0:::off:::" {
		t.Errorf("the SDK reads tap %q, MAC %q, ip=%s", got.TapName, got.VMMacAddr, got.IPBootParam())
	}
	n.prepare("DEL", c).masked(private).run().silent()
}

// Kata's file has what examples/kata.conflist gives: the first address of the pool, and the default route.
func TestExampleOfKata(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	file := filepath.Join(t.TempDir(), "c1.json")
	a := n.prepare("ADD", example(t, "kata.conflist"))
	a.masked(private + `; "$0" "$@"; cp /run/kata-containers/dans/c1.json ` + file + "; exit")
	a.run().ok()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var dan struct {
		Devices []struct {
			Device      struct{ Type string }
			NetworkInfo struct {
				Interface struct {
					IPAddresses []string `json:"ip_addresses"`
				}
				Routes []struct{ Gateway string }
			} `json:"network_info"`
		}
	}
	if err := json.Unmarshal(text, &dan); err != nil || len(dan.Devices) != 1 {
		t.Fatalf("%v: %s", err, text)
	}
	d := dan.Devices[0]
	if d.Device.Type != "host-tap" || len(d.NetworkInfo.Routes) != 1 || d.NetworkInfo.Routes[0].Gateway != "10.60.0.1" {
		t.Errorf("the file says %s", text)
	}
	if got := d.NetworkInfo.Interface.IPAddresses; len(got) != 1 || got[0] != "10.60.0.2/24" {
		t.Errorf("addresses %q", got)
	}
}

// The pod's interface has the address that examples/veth.conflist gives: Kata's Go runtime looks for interfaces with one.
func TestExampleOfVeth(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := example(t, "veth.conflist")
	n.prepare("ADD", c).masked(private).run().ok()
	var links []struct {
		AddrInfo []struct {
			Local     netip.Addr
			PrefixLen int
		} `json:"addr_info"`
	}
	said := n.pod.Run(t, "ip", "-j", "addr", "show", "net1")
	if err := json.Unmarshal([]byte(said), &links); err != nil {
		t.Fatal(err)
	}
	if got := links[0].AddrInfo; len(got) == 0 || got[0].Local != netip.MustParseAddr("10.55.0.2") || got[0].PrefixLen != 24 {
		t.Errorf("the pod has %s", said)
	}
	n.prepare("DEL", c).masked(private).run().silent()
}
