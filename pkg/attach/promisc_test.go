package attach

import (
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// With every port managed but the uplink, the bridge takes the uplink out of
// promiscuous mode and has it filter for the guests' addresses; one port that
// learns or floods brings it back (net/bridge/br_if.c, br_manage_promisc), and is
// named. The uplink is a macvlan, or a network card: a veth cannot filter.
func TestVLANAwareBridgeSparesTheUplink(t *testing.T) {
	for name, create := range map[string]func(*node) string{
		"macvlan": func(n *node) string {
			n.hostRun("ip link add lower0 up type veth peer name lower1", "ip link add up0 link lower0 type macvlan mode bridge")
			return "up0"
		},
		"virtio": func(n *node) string {
			nic := nstest.NIC(n.T, n.host)
			if is := n.host.Run(n.T, "ip", "-d", "link", "show", nic); !strings.Contains(is, "parentbus virtio") {
				n.Fatalf("the network card is no virtio one: %s", is)
			}
			return nic
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nstest.NeedsVLANs(t)
			n := &node{T: t, host: nstest.New(t), pod: nstest.New(t)}
			nstest.Bridge(t, n.host, "br0", bridgeMAC)
			n.hostRun("ip link set br0 type bridge vlan_filtering 1")
			u := uplink{n, create(n)}
			n.hostRun("ip link set " + u.name + " master br0 up")
			u.isSpared()
		})
	}
}

// uplink is one that can filter addresses, on a VLAN-aware bridge.
type uplink struct {
	*node
	name string
}

func (u uplink) isSpared() {
	u.filters("with no guest")
	guests := []port.Attachment{vlanWish(port.Tap, "1PU"), u.another(port.Static, "52:54:00:00:00:66"), u.another(port.Kernel, "52:54:00:00:00:77")}
	u.mustApply(guests[0])
	u.mustApply(guests[1])
	u.filters("with managed guests", guests[:2]...)
	last := guests[2].PortName()
	u.mustApply(guests[2])
	u.isPromiscuous(last + " learns and floods")
	u.hostRun("bridge link set dev " + last + " learning off")
	u.isPromiscuous(last + " floods")
	u.hostRun("bridge link set dev " + last + " learning on flood off")
	u.isPromiscuous(last + " learns")
	u.hostRun("bridge link set dev " + u.name + " learning off flood off")
	u.isPromiscuous(last + " learns") // as the only port that does, but it is not the uplink
	u.hostRun("bridge link set dev " + u.name + " learning on flood on")
	if err := u.remove(guests[2].ID); err != nil {
		u.Fatal(err)
	}
	u.filters("without the last guest", guests[:2]...)
	u.hostRun("ip link set br0 promisc on")
	u.isPromiscuous("br0 is promiscuous itself")
	u.hostRun("ip link set br0 promisc off", "ip link set br0 type bridge vlan_filtering 0")
	u.isPromiscuous("br0 is not VLAN-aware")
	u.hostRun("ip link set br0 type bridge vlan_filtering 1")
	listener := nstest.OpenLink(u.T, u.host, u.name)
	u.isPromiscuous(u.name + " has a driver that does not filter addresses, or a program that listens to everything")
	listener.Close()
	u.filters("at last", guests[:2]...)
}

func (u uplink) another(table port.Table, guest string) port.Attachment {
	a := second(table, guest)
	a.MTU, a.VLANs, a.ContainerID = 1500, "1PU", guest
	a.IfName = "net" + guest[len(guest)-2:]
	return a
}

// filters demands that the uplink is not promiscuous, and lets the guests'
// addresses in.
func (u uplink) filters(when string, guests ...port.Attachment) {
	u.Helper()
	if is := u.host.Run(u.T, "ip", "-d", "link", "show", u.name); !strings.Contains(is, "promiscuity 0 ") {
		u.Errorf("%s the uplink is promiscuous: %s", when, is)
	}
	if got := u.uplinks(); len(got) != 1 || got[0].Promiscuous || got[0].Name != u.name {
		u.Errorf("%s the uplinks are said to be %v", when, got)
	}
	addresses := u.host.Run(u.T, "bridge", "fdb", "show", "dev", u.name)
	for _, g := range guests {
		if !strings.Contains(addresses, g.Guest.String()+" self") {
			u.Errorf("%s the uplink has no filter for guest %s: %s", when, g.Guest, addresses)
		}
	}
}

// isPromiscuous demands that the uplink is, and for this one reason.
func (u uplink) isPromiscuous(because string) {
	u.Helper()
	if is := u.host.Run(u.T, "ip", "-d", "link", "show", u.name); strings.Contains(is, "promiscuity 0 ") {
		u.Errorf("the uplink is not promiscuous, though %s: %s", because, is)
	}
	want := "br0: uplink " + u.name + " is promiscuous: " + because
	if got := u.uplinks(); len(got) != 1 || got[0].String() != want {
		u.Errorf("the uplinks are said to be %v, want %s", got, want)
	}
}

func (u uplink) uplinks() (all []bridge.Uplink) {
	u.Helper()
	u.site(func(s *Site) {
		var err error
		if all, err = s.Uplinks("br0"); err != nil {
			u.Fatal(err)
		}
	})
	return all
}
