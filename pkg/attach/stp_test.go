package attach_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/port"
)

// bpdu says that the guest is the root of the spanning tree, as no other bridge
// can be (IEEE 802.1D, 9.3.1).
func (g *guest) bpdu() packet {
	id := slices.Concat([]byte{0, 0}, g.mac)
	return ethernet("01:80:c2:00:00:00", g.mac, 38, []byte{0x42, 0x42, 3, 0, 0, 0, 0, 0},
		id, []byte{0, 0, 0, 0}, id, []byte{0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0}, make([]byte, 8))
}

// bpduTopologyChange makes a bridge forget what it has learned.
func (g *guest) bpduTopologyChange() packet {
	return ethernet("01:80:c2:00:00:00", g.mac, 7, []byte{0x42, 0x42, 3, 0, 0, 0, 0x80}, make([]byte, 39))
}

type stpBridge struct {
	Linkinfo struct {
		Data struct {
			RootPort int `json:"root_port"` // 0: the bridge itself is the root
			Detected int `json:"topology_change_detected"`
			Changing int `json:"topology_change"`
		} `json:"info_data"`
	}
}

func (n *lanNode) stp(t *testing.T) stpBridge {
	t.Helper()
	var links []stpBridge
	goldenJSON(t, n, &links, "ip", "-d", "-j", "link", "show", "dev", lanBridge)
	return links[0]
}

func (n *lanNode) portState(t testing.TB, name string) string {
	t.Helper()
	for _, word := range strings.Fields(n.Run(t, "bridge", "link", "show", "dev", name)) {
		if slices.Contains([]string{"disabled", "listening", "learning", "forwarding", "blocking"}, word) {
			return word
		}
	}
	return ""
}

// TestSpanningTree: on a bridge with STP a guest can make itself the root. Where
// the port is guarded, it switches itself off instead, until the port is set down
// and up.
func TestSpanningTree(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		table   port.Table
		options []guestOption
		guarded bool
	}{
		"kernel":            {port.Kernel, nil, false},
		"kernel ipSpoofChk": {port.Kernel, []guestOption{guestGuarded}, true},
		"sticky":            {port.Sticky, nil, true},
		"roaming":           {port.Roaming, nil, true},
	} {
		for _, mode := range port.Modes {
			t.Run(string(mode)+" "+name, func(t *testing.T) {
				t.Parallel()
				n := lanNew(t, 1500)
				g := n.guest(t, mode, c.table, c.options...)
				n.Run(t, "ip", "link", "set", lanBridge, "type", "bridge", "stp_state", "1")
				before := n.stp(t)
				g.wire.Send(g.bpdu())
				if !c.guarded {
					lanUntil(t, "the root is behind the guest's port", func() bool { return n.stp(t).Linkinfo.Data.RootPort != 0 })
					return
				}
				lanUntil(t, "the port is disabled", func() bool { return n.portState(t, g.PortName()) == "disabled" })
				g.wire.Send(g.bpduTopologyChange())
				if now := n.stp(t); now != before {
					t.Errorf("the spanning tree is %+v, was %+v", now, before)
				}
				n.Run(t, "ip", "link", "set", g.PortName(), "down")
				n.Run(t, "ip", "link", "set", g.PortName(), "up")
				lanUntil(t, "the port is back", func() bool { return n.portState(t, g.PortName()) != "disabled" })
			})
		}
	}
}
