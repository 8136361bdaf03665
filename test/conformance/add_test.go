package conformance

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ADD creates CNI_IFNAME in CNI_NETNS, and the result lists it. In mode host-tap
// the guest's NIC has no device in the pod: there CNI_IFNAME is its name in the
// result (design.md, section 6).
func Test20CreatesTheInterface(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		nic := n.call("ADD", n.conf()).result().nic()
		if nic.Name != "net1" {
			t.Errorf("the result calls the guest's NIC %q", nic.Name)
		}
		want := map[string][]string{"tap": {"lo", "net1", "tap1"}, "veth": {"lo", "net1"}, "host-tap": {"lo"}}[n.mode()]
		if diff := cmp.Diff(want, n.names(n.pod)); diff != "" {
			t.Errorf("devices of the pod (-want +got):\n%s", diff)
		}
	})
}

// An interface of that name is an error, stays untouched, and nothing is left
// over.
func Test21NameIsTaken(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.sh(n.pod, nil, "ip link add net1 type bridge\n ip link add net2 type veth peer name net3\n ip tuntap add net4 mode tap")
		n.unchanged(func() {
			for _, name := range []string{"net1", "net2", "net3", "net4", "lo"} {
				n.call("ADD", n.conf(), env{"CNI_IFNAME": name}).fails(anyCode, name)
			}
		})
	})
}

// A second identical ADD without DEL is an error, and the first attachment
// stays intact.
func Test22SecondADD(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		added := n.call("ADD", n.conf(libvirt)).ok()
		n.unchanged(func() {
			n.call("ADD", n.conf(libvirt)).fails(anyCode)
			n.call("ADD", n.conf(libvirt)).fails(anyCode)
		})
		n.call("CHECK", n.conf(libvirt, added.prev())).silent()
	})
}

// The result has the input's cniVersion, for every supported version.
func Test23ResultVersion(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for _, version := range versions {
			for _, c := range []conf{{}, recording} {
				got := n.call("ADD", n.conf(c, conf{"cniVersion": version})).result()
				if got.CNIVersion != version {
					t.Errorf("version %q for %q", got.CNIVersion, version)
				}
				n.call("DEL", n.conf(c, conf{"cniVersion": version})).ok()
			}
		}
	})
}

// interfaces lists every device that was created, and the bridge. The one
// exception is the tap in mode tap (design.md, section 6).
func Test24AllInterfaces(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for _, c := range []conf{{}, {"bridge": "br1", "createBridge": true}} {
			hostBefore, podBefore := n.names(n.host), n.names(n.pod)
			r := n.call("ADD", n.conf(c)).result()
			var listed []string
			for _, i := range r.Interfaces {
				listed = append(listed, i.Name)
			}
			created := slices.Concat(less(n.names(n.host), hostBefore), less(n.names(n.pod), podBefore, "tap1"))
			if missing := less(created, listed); len(missing) > 0 {
				t.Errorf("%q of the created devices are missing in %q", missing, listed)
			}
			if bridge := n.conf(c)["bridge"]; listed[0] != bridge {
				t.Errorf("%q begins not with the bridge %q", listed, bridge)
			}
			if r.port().Sandbox != "" || n.links(n.host)[r.port().Name].Master == "" {
				t.Errorf("%q is not the bridge port", r.port().Name)
			}
			n.call("DEL", n.conf(c)).ok()
		}
	})
}

// less is the words without others.
func less(words, others []string, more ...string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return slices.Contains(append(others, more...), w) })
}

// A host interface has no sandbox; the container's has CNI_NETNS byte for byte.
func Test25Sandbox(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		dir, base := filepath.Split(n.pod.Path)
		link := filepath.Join(t.TempDir(), "link to a namespace é")
		if err := os.Symlink(n.pod.Path, link); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{n.pod.Path, dir + "/.//" + base, link} {
			r := n.call("ADD", n.conf(), env{"CNI_NETNS": path}).result()
			for _, i := range r.Interfaces[:len(r.Interfaces)-1] {
				if i.Sandbox != "" {
					t.Errorf("%q has sandbox %q", i.Name, i.Sandbox)
				}
			}
			if got := r.nic().Sandbox; got != path {
				t.Errorf("sandbox %q, want %q", got, path)
			}
			n.call("DEL", n.conf(), env{"CNI_NETNS": path}).ok()
		}
	})
}

// devices are a result's interfaces but the guest's NIC in mode host-tap, which
// is no device.
func (n *node) devices(r *result) []iface {
	if n.mode() == "host-tap" {
		return r.Interfaces[:len(r.Interfaces)-1]
	}
	return r.Interfaces
}

// mac is the kernel's hardware address of the device.
func Test26MAC(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for _, c := range []conf{{}, {"mac": guestMAC}, libvirt, {"bridge": "br1", "createBridge": true}} {
			r := n.call("ADD", n.conf(c)).result()
			for _, i := range n.devices(r) {
				if got := n.links(n.where(i))[i.Name].Address; got != i.MAC {
					t.Errorf("%q has MAC %q, the result says %q", i.Name, got, i.MAC)
				}
			}
			if c["mac"] != nil && r.nic().MAC != guestMAC {
				t.Errorf("the guest's MAC is %q, want %q", r.nic().MAC, guestMAC)
			}
			n.call("DEL", n.conf(c)).ok()
		}
	})
}

// mtu is there for 1.1.0 and is the kernel's.
func Test27MTU(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for _, mtu := range []any{nil, 1500, 1280, 68} {
			r := n.call("ADD", n.conf(conf{"mtu": mtu})).result()
			for _, i := range n.devices(r) {
				if got := n.links(n.where(i))[i.Name].MTU; i.MTU == nil || *i.MTU != got {
					t.Errorf("%q has MTU %d, the result says %s", i.Name, got, asJSON(t, i.MTU))
				}
			}
			if want := mtu; want != nil && (r.nic().MTU == nil || *r.nic().MTU != want) {
				t.Errorf("the guest's MTU is %s, want %d", asJSON(t, r.nic().MTU), want)
			}
			n.call("DEL", n.conf()).ok()
		}
	})
}

// A tap is no PCI device and has no socket.
func Test28NoSocketNoPCI(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for _, i := range n.call("ADD", n.conf(recording)).result().Interfaces {
			if i.SocketPath != nil || i.PCIID != nil {
				t.Errorf("%q has a socketPath or pciID", i.Name)
			}
		}
	})
}

// ips[].interface is a valid index, addresses are CIDR; without IPAM there are
// none.
func Test29IPs(t *testing.T) {
	static := conf{"ipam": conf{"type": "static", "addresses": []conf{
		{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}, {"address": "fd00::5/64"},
	}, "routes": []conf{{"dst": "10.8.0.0/16", "gw": "10.9.0.1"}}}}
	eachMode(t, func(t *testing.T, n *node) {
		for _, version := range versions {
			v := conf{"cniVersion": version}
			if r := n.call("ADD", n.conf(v)).result(); len(r.IPs) != 0 {
				t.Errorf("%s: addresses without IPAM: %+v", version, r.IPs)
			}
			n.call("DEL", n.conf(v)).ok()
			added := n.call("ADD", n.conf(v, static))
			r := added.result()
			var addresses []string
			for _, ip := range r.IPs {
				if _, err := netip.ParsePrefix(ip.Address); err != nil {
					t.Error(err)
				}
				if ip.Interface == nil || r.Interfaces[*ip.Interface].Name != "net1" {
					t.Errorf("%s: address %s is not that of net1: %s", version, ip.Address, added.stdout)
				}
				addresses = append(addresses, ip.Address)
			}
			if diff := cmp.Diff([]string{"10.9.0.5/24", "fd00::5/64"}, addresses); diff != "" {
				t.Errorf("%s: addresses (-want +got):\n%s", version, diff)
			}
			n.call("DEL", n.conf(v, static)).ok()
		}
	})
}

// before is the result of plugins that came first in a chain.
const before = `{
	"cniVersion": "1.1.0",
	"interfaces": [
		{"name": "cni0", "mac": "02:00:00:00:00:77", "mtu": 1400},
		{"name": "eth0", "mac": "02:00:00:00:00:78", "sandbox": "/run/netns/elsewhere", "socketPath": "/run/s", "pciID": "0000:00:01.0"}],
	"ips": [{"address": "10.7.0.2/24", "gateway": "10.7.0.1", "interface": 1}],
	"routes": [{"dst": "10.6.0.0/16", "gw": "10.7.0.1", "mtu": 1400, "priority": 7, "table": 100, "scope": 0}],
	"dns": {"nameservers": ["10.7.0.1"], "search": ["example.org"]}}`

// What is in a prevResult survives, ours is added to it.
func Test30PrevResultMerged(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		plain := n.call("ADD", n.conf(recording)).ok()
		n.call("DEL", n.conf(recording)).ok()
		merged := n.call("ADD", n.conf(recording, conf{"prevResult": json.RawMessage(before)})).ok()
		var prev, ours, got lists
		decode(t, before, &prev)
		plain.decode(&ours)
		merged.decode(&got)
		ours.IPs[0].(map[string]any)["interface"] = float64(len(got.Interfaces) - 1)
		want := lists{
			Interfaces: slices.Concat(prev.Interfaces, ours.Interfaces),
			IPs:        slices.Concat(prev.IPs, ours.IPs),
			Routes:     prev.Routes,
			DNS:        prev.DNS,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
	})
}

// lists are the parts of a result, as they were written.
type lists struct {
	Interfaces, IPs, Routes []any
	DNS                     any
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// Without our three interfaces the output is the prevResult, in every version.
func Test31PrevResultUnchanged(t *testing.T) {
	old := `{"cniVersion":%q,"interfaces":[{"name":"cni0","mac":"02:00:00:00:00:77"}],
		"ips":[{"version":"4","address":"10.7.0.2/24","interface":0}],"routes":[{"dst":"10.6.0.0/16"}],"dns":{"domain":"example.org"}}`
	prev := map[string]string{
		"0.3.0": fmt.Sprintf(old, "0.3.0"), "0.3.1": fmt.Sprintf(old, "0.3.1"), "0.4.0": fmt.Sprintf(old, "0.4.0"),
		"1.0.0": `{"cniVersion":"1.0.0","interfaces":[{"name":"cni0"}],"ips":[{"address":"10.7.0.2/24"}]}`,
		"1.1.0": before,
	}
	eachMode(t, func(t *testing.T, n *node) {
		for _, version := range versions {
			var want, got map[string]any
			decode(t, prev[version], &want)
			n.call("ADD", n.conf(conf{"cniVersion": version, "prevResult": want})).ok().decode(&got)
			all := got["interfaces"].([]any)
			got["interfaces"] = all[:len(all)-3]
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-prevResult +result):\n%s", version, diff)
			}
			n.call("DEL", n.conf(conf{"cniVersion": version})).ok()
		}
	})
}

// A malformed prevResult is E(6) or E(7), without a panic, and nothing is made.
func Test32MalformedPrevResult(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.unchanged(func() {
		for _, prev := range []string{
			`"text"`, `5`, `[]`, `true`,
			`{"cniVersion":"9.9.9"}`,
			`{"cniVersion":5}`,
			`{"cniVersion":"1.1.0","interfaces":"text"}`,
			`{"cniVersion":"1.1.0","interfaces":[5]}`,
			`{"cniVersion":"1.1.0","interfaces":[null]}`,
			`{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.1"}]}`,
			`{"cniVersion":"1.1.0","ips":[{"address":"nonsense"}]}`,
			`{"cniVersion":"1.1.0","ips":[null]}`,
			`{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.1/24","interface":0}]}`,
			`{"cniVersion":"1.1.0","interfaces":[{"name":"a"}],"ips":[{"address":"10.0.0.1/24","interface":-1}]}`,
			`{"cniVersion":"1.1.0","routes":[{"dst":"x"}]}`,
			`{"cniVersion":"1.1.0","routes":[null]}`,
			`{"cniVersion":"1.1.0","dns":[]}`,
			`{"cniVersion":"0.4.0","interfaces":[null]}`,
			`{"cniVersion":"0.4.0","ips":[null]}`,
			`{"cniVersion":"0.4.0","routes":[null]}`,
		} {
			var of struct{ CNIVersion any }
			_ = json.Unmarshal([]byte(prev), &of) // some are no objects
			if of.CNIVersion != "0.4.0" {
				of.CNIVersion = newest
			}
			for _, verb := range []string{"ADD", "CHECK"} {
				a := n.call(verb, n.conf(conf{"cniVersion": of.CNIVersion, "prevResult": json.RawMessage(prev)}))
				if f := a.fails(anyCode); f.Code != 6 && f.Code != 7 {
					a.fatalf("prevResult %s: code %d, want 6 or 7", prev, f.Code)
				}
			}
		}
	})
}
