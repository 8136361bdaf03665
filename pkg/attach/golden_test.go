package attach_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/pkg/port"
)

// goldenCase is what a real libvirt left in the kernel.
type goldenCase struct {
	VLANs  bool `json:"vlan_filtering_in_kernel"`
	Case   string
	Bridge struct {
		VLANFiltering int `json:"vlan_filtering"`
	} `json:"bridge_attrs"`
	Ports map[string]map[string]any
}

// goldenGuests are the MAC addresses of the recording's guests, by their tap.
// It does not tell vnet0's first byte: any but 0xFE gives its tap that address.
var goldenGuests = map[string]string{
	"tap-a": "52:54:00:12:34:56",
	"tap-b": "fe:54:00:65:43:21",
	"tap-c": "fa:54:00:12:34:57",
	"vnet0": "00:16:3e:00:00:01",
}

// goldenDifferences are what tapbridge leaves otherwise than libvirt.
var goldenDifferences = []struct{ key, why string }{
	{"tun.persist", "a runtime makes the tap, and a VMM opens it later; libvirt hands its VMM the open one"},
	{"tun.user", "libvirt's VMM needs no permission to open what it is handed"},
	{"tun.group", "the same"},
	{"tun.vnet_hdr", "the VMM says so when it opens the tap"},
	{"bpdu_guard", "libvirt lets a guest take part in the bridge's spanning tree"},
	{"operstate", "it stays UNKNOWN on a tap that never was without carrier"},
}

func TestGoldenPort(t *testing.T) {
	t.Parallel()
	for name, table := range map[string]port.Table{"A2-running": port.Kernel, "B3-running": port.Static} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			golden := goldenRead(t, name, goldenKernelHasVLANs(t, n))
			vlans := guestVLANs("")
			if golden.Bridge.VLANFiltering == 1 {
				n.Run(t, "ip", "link", "set", lanBridge, "type", "bridge", "vlan_filtering", "1")
				vlans = guestVLANs("1PU")
			}
			guests := map[string]*guest{}
			for tap := range golden.Ports {
				if mac, known := goldenGuests[tap]; known { // the others are uplinks
					guests[tap] = n.guest(t, port.HostTap, table, guestMAC(mac), vlans)
				}
			}
			if len(guests) < 3 {
				t.Fatalf("%d guests in the recording, want at least 3", len(guests))
			}
			for tap, g := range guests {
				want, got := golden.Ports[tap], goldenObserve(t, n, g.PortName())
				goldenForget(want)
				goldenForget(got)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("port of guest %s (-libvirt +tapbridge):\n%s", g.Guest, diff)
				}
			}
		})
	}
}

// TestGoldenMTU: as with libvirt the tap takes the bridge's MTU, here for
// bridges that the recording does not have.
func TestGoldenMTU(t *testing.T) {
	t.Parallel()
	for _, mtu := range []int{1400, 9000} {
		for _, mode := range port.Modes {
			t.Run(fmt.Sprintf("%s %d", mode, mtu), func(t *testing.T) {
				t.Parallel()
				n := lanNew(t, mtu)
				g := n.guest(t, mode, port.Static)
				link := goldenObserve(t, n, g.PortName())["link"].(map[string]any)
				if got := link["mtu"]; got != float64(mtu) {
					t.Errorf("port on a bridge of MTU %d has MTU %v", mtu, got)
				}
			})
		}
	}
}

func goldenRead(t *testing.T, name string, vlans bool) goldenCase {
	t.Helper()
	data, err := os.ReadFile("testdata/libvirt-ports.json")
	if err != nil {
		t.Fatal(err)
	}
	var recording struct{ Cases []goldenCase }
	if err := json.Unmarshal(data, &recording); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(recording.Cases, func(c goldenCase) bool { return c.Case == name && c.VLANs == vlans })
	if i < 0 {
		t.Fatalf("no case %q in the recording", name)
	}
	return recording.Cases[i]
}

// goldenKernelHasVLANs: such a kernel has one entry more for each VLAN, and
// VLAN 1 on every port.
func goldenKernelHasVLANs(t *testing.T, n *lanNode) bool {
	t.Helper()
	return strings.Contains(n.Run(t, "ip", "-d", "link", "show", lanBridge), "vlan_default_pvid")
}

// goldenObserve describes a port as the recording does.
func goldenObserve(t *testing.T, n *lanNode, name string) map[string]any {
	t.Helper()
	var links []map[string]any
	goldenJSON(t, n, &links, "ip", "-d", "-j", "link", "show", "dev", name)
	link := links[0]
	info := link["linkinfo"].(map[string]any)
	member := info["info_slave_data"].(map[string]any)
	described := map[string]any{
		"learning":        goldenFlag(member["learning"]),
		"unicast_flood":   goldenFlag(member["flood"]),
		"multicast_flood": goldenFlag(member["mcast_flood"]),
		"broadcast_flood": goldenFlag(member["bcast_flood"]),
		"isolated":        goldenFlag(member["isolated"]),
		"hairpin":         goldenFlag(member["hairpin"]),
		"state":           goldenState(member["state"]),
		"link": map[string]any{
			"address": link["address"], "mtu": link["mtu"], "promiscuity": link["promiscuity"], "allmulti": link["allmulti"],
			"operstate": link["operstate"], "flags": link["flags"], "qdisc": link["qdisc"], "txqlen": link["txqlen"],
			"kind": info["info_kind"], "tun": info["info_data"], "bpdu_guard": member["guard"],
		},
	}
	described["fdb"], described["uc_filter"] = goldenEntries(t, n, name)
	if goldenKernelHasVLANs(t, n) {
		described["vlans"] = goldenVLANs(t, n, name)
	}
	return described
}

func goldenJSON(t *testing.T, n *lanNode, into any, command ...string) {
	t.Helper()
	if err := json.Unmarshal([]byte(n.Run(t, command[0], command[1:]...)), into); err != nil {
		t.Fatalf("%q: %v", command, err)
	}
}

func goldenFlag(on any) any {
	if on == true {
		return float64(1)
	}
	return float64(0)
}

// goldenState is the number in the kernel (linux/if_bridge.h).
func goldenState(word any) any {
	if word == "forwarding" {
		return float64(3)
	}
	return word
}

// goldenEntries are the bridge's entries for the port, and the addresses that
// the port itself receives.
func goldenEntries(t *testing.T, n *lanNode, name string) (fdb, filter []any) {
	t.Helper()
	var entries []map[string]any
	goldenJSON(t, n, &entries, "bridge", "-d", "-j", "fdb", "show", "dev", name)
	fdb, filter = []any{}, []any{}
	for _, e := range entries {
		address := e["mac"].(string)
		switch multicast := lanMAC(address)[0]&1 == 1; {
		case e["master"] != nil:
			fdb = append(fdb, map[string]any{"mac": address, "vlan": e["vlan"], "state": e["state"], "flags": e["flags"]})
		case !multicast:
			filter = append(filter, address)
		}
	}
	return fdb, filter
}

func goldenVLANs(t *testing.T, n *lanNode, name string) any {
	t.Helper()
	var ports []map[string]any
	goldenJSON(t, n, &ports, "bridge", "-d", "-j", "vlan", "show", "dev", name)
	var vlans []any
	for _, v := range ports[0]["vlans"].([]any) {
		vlan := v.(map[string]any)
		vlans = append(vlans, map[string]any{"vid": vlan["vlan"], "flags": vlan["flags"]})
	}
	return vlans
}

// goldenForget takes out what need not be the same, and puts the entries in
// order.
func goldenForget(described map[string]any) {
	link := described["link"].(map[string]any)
	for _, d := range goldenDifferences {
		in, key := link, d.key
		if inTun, found := strings.CutPrefix(key, "tun."); found {
			in, key = link["tun"].(map[string]any), inTun
		}
		delete(in, key)
	}
	slices.SortFunc(described["fdb"].([]any), func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
}
