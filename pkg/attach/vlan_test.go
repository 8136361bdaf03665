package attach

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// vlanNode is a node with a VLAN-aware bridge, and a trunk port on it that the
// test holds: VLAN 1 untagged, 42, 100 and 200 tagged.
func vlanNode(t *testing.T) (*node, *nstest.Wire) {
	t.Helper()
	nstest.NeedsVLANs(t)
	n := newNode(t)
	n.hostRun(
		"ip link set br0 type bridge vlan_filtering 1",
		"ip tuntap add dev trunk0 mode tap",
		"ip link set trunk0 master br0 up",
		"bridge vlan add dev trunk0 vid 42",
		"bridge vlan add dev trunk0 vid 100",
		"bridge vlan add dev trunk0 vid 200")
	n.sysctl(n.host, "net.ipv6.conf.trunk0.disable_ipv6=1")
	trunk := nstest.OpenTap(t, n.host, "trunk0")
	nstest.WaitForwarding(t, n.host, "trunk0")
	return n, trunk
}

// vlanWish is an attachment with these VLANs and no other option.
func vlanWish(mode port.Mode, vlans bridge.VLANs) port.Attachment {
	a := wish(mode)
	a.VLANs, a.Options, a.Access.MultiQueue, a.MTU = vlans, port.Options{}, false, 1500
	return a
}

func (n *node) open(a port.Attachment) *nstest.Wire {
	n.Helper()
	ns, name := n.pod, a.TapName()
	switch a.Mode {
	case port.HostTap:
		ns, name = n.host, a.PortName()
	case port.Veth:
		n.Fatal("a packet socket does not show tags")
	}
	w := nstest.OpenTap(n.T, ns, name)
	nstest.WaitForwarding(n.T, n.host, a.PortName())
	return w
}

// tagged puts an 802.1Q tag into a frame; VLAN 0 stands for none.
func tagged(frame []byte, vlan int) []byte {
	if vlan == 0 {
		return frame
	}
	return slices.Insert(slices.Clone(frame), 12, 0x81, 0, byte(vlan>>8), byte(vlan))
}

// vlanOf is the VLAN that the frame is tagged with; 0: none.
func vlanOf(frame []byte) int {
	if len(frame) > 16 && frame[12] == 0x81 && frame[13] == 0 {
		return int(frame[14]&0xf)<<8 | int(frame[15])
	}
	return 0
}

var vlanPeer = net.HardwareAddr{2, 0, 0, 0, 0, 0x99}

// heard sends ten frames in one VLAN, and says how many arrive in which.
func heard(t *testing.T, from, to *nstest.Wire, dst, src net.HardwareAddr, vlan int) string {
	t.Helper()
	to.Reset()
	got := nstest.Count(t, from, to, tagged(nstest.Frame(dst, src, 100, "vlan"), vlan), 10)
	for _, f := range to.Frames() {
		if strings.Contains(string(f), "vlan") {
			return fmt.Sprintf("%d in %d", got, vlanOf(f))
		}
	}
	return "none"
}

// Frames arrive tagged and untagged as configured, and on no other VLAN, also
// not on the bridge's default one.
func TestVLANFrames(t *testing.T) {
	for _, c := range []struct {
		vlans bridge.VLANs
		out   map[int]string // what the guest sends in a VLAN, as the trunk hears it
		in    map[int]string // what the trunk sends in a VLAN, as the guest hears it
	}{
		{"42PU", map[int]string{0: "10 in 42", 42: "10 in 42", 100: "none", 1: "none"}, map[int]string{0: "none", 42: "10 in 0", 100: "none", 200: "none"}},
		{"42 100", map[int]string{0: "none", 42: "10 in 42", 100: "10 in 100", 200: "none"}, map[int]string{0: "none", 42: "10 in 42", 100: "10 in 100", 200: "none"}},
		{"42PU 100", map[int]string{0: "10 in 42", 100: "10 in 100", 200: "none"}, map[int]string{0: "none", 42: "10 in 0", 100: "10 in 100", 200: "none"}},
		{"1U 42PU", map[int]string{0: "10 in 42", 100: "none"}, map[int]string{0: "10 in 0", 42: "10 in 0", 100: "none"}},
		{"1PU", map[int]string{0: "10 in 0", 42: "none"}, map[int]string{0: "10 in 0", 42: "none"}},
	} {
		for _, mode := range []port.Mode{port.Tap, port.HostTap} {
			t.Run(fmt.Sprintf("%s %s", mode, c.vlans), func(t *testing.T) {
				t.Parallel()
				n, trunk := vlanNode(t)
				a := vlanWish(mode, c.vlans)
				n.mustApply(a)
				guest := n.open(a)
				out, in := map[int]string{}, map[int]string{}
				for vlan := range c.out {
					out[vlan] = heard(t, guest, trunk, vlanPeer, a.Guest.HardwareAddr(), vlan)
				}
				for vlan := range c.in { // unicast: flooding is off, so each VLAN needs its entry
					in[vlan] = heard(t, trunk, guest, a.Guest.HardwareAddr(), vlanPeer, vlan)
				}
				if diff := cmp.Diff(c.out, out); diff != "" {
					t.Errorf("from the guest (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(c.in, in); diff != "" {
					t.Errorf("to the guest (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestVLANApplyThenRemoveLeavesNothing(t *testing.T) {
	for _, mode := range port.Modes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			n, _ := vlanNode(t)
			before := n.world()
			for _, vlans := range []bridge.VLANs{"42PU", "42 100-110", "1U 42PU 100-4094", "1PU"} {
				a := vlanWish(mode, vlans)
				n.mustApply(a)
				if err := n.drift(a); err != nil {
					t.Errorf("%s: %v", vlans, err)
				}
				if err := n.remove(a.ID); err != nil {
					t.Fatal(err)
				}
				n.wantWorld(before, "after Remove")
			}
		})
	}
}

func TestVLANEveryStepFails(t *testing.T) {
	t.Parallel()
	n, _ := vlanNode(t)
	for _, table := range []port.Table{port.Sticky, port.Static} {
		a := vlanWish(port.Tap, "1U 42PU 100-110")
		a.Table = table
		n.everyStepFails(a, false)
	}
}

// Of a VLAN that somebody has taken from the port nobody can delete an entry, on kernels
// before 6.13: it has gone, or goes with the port.
func TestVLANIsLost(t *testing.T) {
	t.Parallel()
	n, _ := vlanNode(t)
	for _, table := range []port.Table{port.Sticky, port.Static, port.Roaming} {
		a := vlanWish(port.Veth, "42PU 100")
		a.Table = table
		before := n.world()
		n.mustApply(a)
		n.hostRun("bridge vlan del dev " + a.PortName() + " vid 42")
		if err := n.remove(a.ID); err != nil {
			t.Errorf("%s: %v", table, err)
		}
		n.wantWorld(before, string(table)+", removed:")
	}
}

func TestVLANDriftIsNamed(t *testing.T) {
	t.Parallel()
	n, _ := vlanNode(t)
	a := vlanWish(port.Tap, "42PU 100")
	for _, d := range []disturbance{
		{says: `VLANs is 42PU, want 42PU 100`, command: "bridge vlan del dev PORT vid 100"},
		{says: `VLANs is 42PU 100-101, want 42PU 100`, command: "bridge vlan add dev PORT vid 101"},
		{says: `VLANs is 42U 100P, want 42PU 100`, command: "bridge vlan add dev PORT vid 100 pvid"},
		{says: `bridge br0 is not VLAN-aware, want VLANs 42PU 100`, command: "ip link set br0 type bridge vlan_filtering 0"},
		{says: `FDB entry 52:54:00:12:34:56 in VLAN 100 is missing`, command: "bridge fdb del 52:54:00:12:34:56 dev PORT master vlan 100"},
		{says: `FDB entry 52:54:00:12:34:56 in VLAN 42: port is trunk0`, command: "bridge fdb replace 52:54:00:12:34:56 dev trunk0 master static vlan 42"},
	} {
		n.mustApply(a)
		d.in = inHost
		n.disturb(d, a)
		if err := n.drift(a); err == nil || !strings.Contains(err.Error(), d.says) {
			t.Errorf("%s: drift %v, want %s", d.command, err, d.says)
		}
		before := n.world()
		if err := n.remove(a.ID); err != nil {
			t.Error(err)
		}
		if strings.Contains(n.world(), a.Guest.String()) {
			t.Errorf("%s: an entry is left:\n%s", d.command, nstest.Diff(before, n.world()))
		}
		n.host.Run(t, "ip", "link", "set", "br0", "type", "bridge", "vlan_filtering", "1")
	}
}

// A bridge that is created for VLANs is VLAN-aware.
func TestVLANCreatedBridge(t *testing.T) {
	t.Parallel()
	n, _ := vlanNode(t)
	a := vlanWish(port.Tap, "42PU")
	a.Bridge = "br1"
	n.site(func(s *Site) {
		if err := s.Apply(a, bridge.Bridge{Name: "br1", MTU: 1500, VLANAware: true, DefaultPVID: 1}); err != nil {
			t.Fatal(err)
		}
	})
	if got := n.host.Run(t, "ip", "-d", "link", "show", "br1"); !strings.Contains(got, "vlan_filtering 1") {
		t.Errorf("the bridge is not VLAN-aware: %s", got)
	}
}

// What libvirt leaves for the same guests.
func TestVLANGolden(t *testing.T) {
	t.Parallel()
	n, _ := vlanNode(t)
	data, err := os.ReadFile("testdata/libvirt-vlans.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct{ Ports map[string]vlanPort }
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	for name, vlans := range map[string]bridge.VLANs{"tap-acc": "42PU", "tap-trk": "42 100", "tap-nat": "42PU 100"} {
		want := golden.Ports[name]
		a := vlanWish(port.HostTap, vlans)
		a.Table, a.Guest = port.Static, vlanGuest(t, want)
		n.mustApply(a)
		if diff := cmp.Diff(want.sorted(), n.vlanPort(a).sorted()); diff != "" {
			t.Errorf("%s (-libvirt +tapbridge):\n%s", name, diff)
		}
		if err := n.remove(a.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// vlanPort is a port as the recording describes it.
type vlanPort struct {
	Address      string
	Learning     int
	UnicastFlood int `json:"unicast_flood"`
	VLANs        []vlanEntry
	FDB          []vlanFDB
}

type vlanEntry struct {
	VID   int
	Flags []string
}

type vlanFDB struct {
	MAC, State string
	VLAN       int
	Flags      []string
}

func (p vlanPort) sorted() vlanPort {
	slices.SortFunc(p.FDB, func(a, b vlanFDB) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	for i := range p.VLANs {
		p.VLANs[i].Flags = append([]string{}, p.VLANs[i].Flags...)
	}
	return p
}

// vlanGuest is the guest whose port has that entry.
func vlanGuest(t *testing.T, p vlanPort) mac.Addr {
	t.Helper()
	for _, e := range p.FDB {
		if e.State == "static" {
			return guest(e.MAC)
		}
	}
	t.Fatal("the recording has no guest")
	return mac.Addr{}
}

// vlanPort reads a port with iproute2, not with the code under test.
func (n *node) vlanPort(a port.Attachment) (p vlanPort) {
	n.Helper()
	var links []struct {
		Address  string
		LinkInfo struct {
			Slave struct {
				Learning     bool
				UnicastFlood bool `json:"flood"`
			} `json:"info_slave_data"`
		}
	}
	n.json(&links, "ip", "-d", "-j", "link", "show", a.PortName())
	var vlans []struct {
		VLANs []struct {
			VLAN  int
			Flags []string
		}
	}
	n.json(&vlans, "bridge", "-j", "vlan", "show", "dev", a.PortName())
	var fdb []struct {
		MAC, State string
		VLAN       int
		Flags      []string
		Master     string
	}
	n.json(&fdb, "bridge", "-j", "fdb", "show", "brport", a.PortName())
	p.Address = links[0].Address
	if links[0].LinkInfo.Slave.Learning {
		p.Learning = 1
	}
	if links[0].LinkInfo.Slave.UnicastFlood {
		p.UnicastFlood = 1
	}
	for _, v := range vlans[0].VLANs {
		p.VLANs = append(p.VLANs, vlanEntry{v.VLAN, v.Flags})
	}
	for _, e := range fdb {
		if e.Master != "" {
			p.FDB = append(p.FDB, vlanFDB{e.MAC, e.State, e.VLAN, append([]string{}, e.Flags...)})
		}
	}
	return p
}

func (n *node) json(into any, command string, args ...string) {
	n.Helper()
	if err := json.Unmarshal([]byte(n.host.Run(n.T, command, args...)), into); err != nil {
		n.Fatal(err)
	}
}
