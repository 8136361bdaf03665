package attach_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

// theftTable is what a guest gains of 10 frames to its victim / what the victim
// loses of them, once it has sent one frame as SECURITY.md has it.
const theftTable = `
| one frame, and whose traffic it is after | default | and ipSpoofChk | libvirt | and macspoofchk | and ipSpoofChk |
|---|---|---|---|---|---|
| from a neighbour's MAC: the neighbour's | 10 / 10 | 0 / 0 | 0 / 0 | 0 / 0 | 0 / 0 |
| from the MAC of a station behind the uplink: that station's | 10 / 10 | 0 / 0 | 0 / 0 | 0 / 0 | 0 / 0 |
| LLDP from a neighbour's MAC: the neighbour's | 10 / 10 | 10 / 10 | 0 / 0 | 0 / 0 | 0 / 0 |
`

var theftColumns = slices.Insert(slices.Clone(columns), 1, column{port.Kernel, []guestOption{guestGuarded}})

func TestTheft(t *testing.T) {
	t.Parallel()
	for _, mode := range port.Modes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			rows := []string{"from a neighbour's MAC: the neighbour's", "from the MAC of a station behind the uplink: that station's", "LLDP from a neighbour's MAC: the neighbour's"}
			for _, c := range theftColumns {
				n := lanNew(t, 1500)
				thief := c.guest(t, n, mode)
				neighbour := n.guest(t, port.Tap, c.table)
				witness := n.guest(t, port.Veth, c.table)
				lanExpect(t, n.outside.to("the station is known", witness.lanStation, 10))
				for i, lure := range []packet{
					ethernet(broadcast, neighbour.mac, etherARP, arpPacket(1, neighbour.mac, neighbour4, neighbour.mac, neighbour4)),
					ethernet(broadcast, n.outside.mac, etherARP, arpPacket(1, n.outside.mac, outside4, n.outside.mac, outside4)),
					ethernet("01:80:c2:00:00:0e", neighbour.mac, 0x88cc, []byte{2, 7, 4}),
				} {
					victim, from := neighbour.lanStation, n.outside
					if i == 1 {
						victim, from = n.outside, witness.lanStation
					}
					lanExpect(t, lanBroadcast("who asks has spoken", from, victim, 10), lanBroadcast("the victim has spoken", victim, from, 10))
					shoot(t, thief.wire, thief.wire, []shot{{packet: lure}})
					gained := from.to("", victim, 10)
					gained.at = []lanStation{thief.lanStation}
					counts := lanCount(from.to("", victim, 10), gained)
					rows[i] += fmt.Sprintf(" | %d / %d", counts[1], 10-counts[0])
				}
			}
			_, want, _ := strings.Cut(theftTable, "|---|---|---|---|---|---|\n")
			if diff := cmp.Diff(want, "| "+strings.Join(rows, " |\n| ")+" |\n"); diff != "" {
				t.Errorf("frames (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNothingBeforeAdmission: while the delegate is asked, the guest can do no more
// than look for a DHCP server or a router, from no address.
func TestNothingBeforeAdmission(t *testing.T) {
	t.Parallel()
	for _, mode := range port.Modes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, 1500)
			n.withoutIPTables(t)
			g := n.guest(t, mode, port.Sticky, guestGuarded)
			shots := g.honest()
			for i, got := range shoot(t, g.wire, n.outside.wire, shots) {
				want, what, packet := 0, shots[i].what, shots[i].packet
				from4, from6 := binary.BigEndian.Uint32(packet[26:]), [16]byte(packet[22:])
				switch {
				case strings.HasPrefix(what, "RARP"), strings.HasPrefix(what, "DHCP request") && from4 == 0:
					want = 10
				case strings.HasPrefix(what, "router"), strings.HasPrefix(what, "multicast"):
					if from6 == [16]byte{} {
						want = 10
					}
				}
				if got != want {
					t.Errorf("%s: %d of 10 frames, want %d", what, got, want)
				}
			}
		})
	}
}

// TestStorm: nothing but a limit stops a guest from sending what it may at any
// speed.
func TestStorm(t *testing.T) {
	t.Parallel()
	const frames, size = 1000, 1000
	limited := func(a *port.Attachment) { a.FromGuest = shape.Limit{Rate: 1e5, Burst: 1e4} } // 10 s for all
	for name, c := range map[string]struct {
		options []guestOption
		most    int
	}{
		"without a limit": {[]guestOption{guestLocked, guestGuarded}, frames},
		"with bandwidth":  {[]guestOption{guestLocked, guestGuarded, limited}, frames / 2},
	} {
		for _, mode := range []port.Mode{port.Tap, port.HostTap} { // in mode veth a limit makes the sender wait
			t.Run(string(mode)+" "+name, func(t *testing.T) {
				t.Parallel()
				n := lanNew(t, 1500)
				g := column{port.Sticky, c.options}.guest(t, n, mode)
				neighbour := n.guest(t, port.Veth, port.Sticky)
				frame := append(ethernet(broadcast, g.mac, etherARP, arpPacket(1, g.mac, hostile4, g.mac, outside4)), make([]byte, size-14-28)...)
				for range frames {
					g.wire.Send(frame)
				}
				heard := func() int { return neighbour.wire.Received(func(f []byte) bool { return len(f) == size }) }
				last := -1
				for now := heard(); now != last && now < frames; now = heard() {
					last = now
					time.Sleep(300 * time.Millisecond)
					if c.most < frames {
						break
					}
				}
				t.Logf("a neighbour gets %d of %d", heard(), frames)
				if got := heard(); got > c.most || got == 0 || c.most == frames && got < frames*9/10 {
					t.Errorf("a neighbour gets %d of %d frames, want up to %d", got, frames, c.most)
				}
			})
		}
	}
}

// vlanTable is how many of 10 frames of a guest with VLAN 42 get where they should
// not, as SECURITY.md has it.
const vlanTable = `
| what the guest of VLAN 42 sends | without | with ipSpoofChk |
|---|---|---|
| tagged with 43, to a guest of VLAN 43 | 0 | 0 |
| two tags, 42 and 43, to a guest of VLAN 43 | 0 | 0 |
| two tags, to an uplink that has VLAN 42 tagged | 10 | 0 |
| two tags, to an uplink that has VLAN 42 untagged: out goes VLAN 43 | 10 | 0 |
| 802.1ad tag | 10 | 0 |
| priority tag (VLAN 0) | 10 | 0 |
| its own VLAN's tag | 10 | 0 |
`

func TestVLANHostile(t *testing.T) {
	t.Parallel()
	nstest.NeedsVLANs(t)
	for _, mode := range port.Modes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			rows := make([]string, 7)
			for _, options := range [][]guestOption{nil, {guestGuarded}} {
				n := lanNew(t, 1500)
				n.Run(t, "ip", "link", "set", lanBridge, "type", "bridge", "vlan_filtering", "1")
				n.Run(t, "bridge", "vlan", "add", "dev", "uplink", "vid", "42-43")
				g := column{port.Sticky, append(options, guestVLANs("42PU"))}.guest(t, n, mode)
				other := n.guest(t, port.Tap, port.Sticky, guestVLANs("43PU"))
				mine := ipv4(hostile4, outside4, 17, 0, udp(1, 2))
				to := func(mac net.HardwareAddr, parts ...[]byte) packet {
					return ethernet(mac.String(), g.mac, etherQ, parts...)
				}
				double := to(n.outside.mac, vlanTag(42, etherQ), vlanTag(43, etherIPv4), mine)
				count := func(at *nstest.Wire, p packet) int { return shoot(t, g.wire, at, []shot{{packet: p}})[0] }
				for i, got := range []int{
					count(other.wire, to(other.mac, vlanTag(43, etherIPv4), mine)),
					count(other.wire, to(other.mac, vlanTag(42, etherQ), vlanTag(43, etherIPv4), mine)),
					count(n.outside.wire, double),
					func() int {
						n.Run(t, "bridge", "vlan", "add", "dev", "uplink", "vid", "42", "pvid", "untagged")
						return count(n.outside.wire, double)
					}(),
					count(n.outside.wire, ethernet(n.outside.mac.String(), g.mac, etherAD, vlanTag(42, etherIPv4), mine)),
					count(n.outside.wire, to(n.outside.mac, vlanTag(0, etherIPv4), mine)),
					count(n.outside.wire, to(n.outside.mac, vlanTag(42, etherIPv4), mine)),
				} {
					rows[i] += fmt.Sprintf(" %d |", got)
				}
			}
			want := strings.Split(strings.TrimSpace(vlanTable), "\n")[2:]
			for i, row := range rows {
				if !strings.HasSuffix(want[i], " |"+row) {
					t.Errorf("measured:%s, want %s", row, want[i])
				}
			}
		})
	}
}
