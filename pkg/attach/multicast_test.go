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
)

// A bridge that snoops drops messages of IGMP and MLD that are not right. Theirs are
// the lengths and sums without the mark behind them.

// Types of messages, and the time that a query gives for an answer.
const (
	igmpQuery, igmpReport, igmpRouter = 0x11, 0x16, 0x30
	mldQuery, mldRouter               = 130, 151
	tenth                             = 1   // of a second
	inMLD                             = 100 // ms
)

// igmp is a message; group "" stands for all.
func igmp(kind byte, group string) []byte {
	m := []byte{kind, tenth, 0, 0, 0, 0, 0, 0}
	if group != "" {
		copy(m[4:], ipBytes(group))
	}
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return m
}

// igmpPacket goes to a group in a frame to any MAC.
func igmpPacket(frame string, from net.HardwareAddr, source, to string, fragment uint16, message []byte) packet {
	p := ipv4(source, to, 2, fragment, message)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[8], p[10], p[11] = 1, 0, 0
	binary.BigEndian.PutUint16(p[10:], checksum(p[:20]))
	return ethernet(frame, from, etherIPv4, p)
}

// mldPacket is one about all groups, behind extension headers.
func mldPacket(frame string, from net.HardwareAddr, source, to string, kind byte, headers ...[]byte) packet {
	m := make([]byte, 24)
	m[0], m[5] = kind, inMLD
	pseudo := slices.Concat(ipBytes(source), ipBytes(to), []byte{0, 0, 0, byte(len(m)), 0, 0, 0, 58})
	binary.BigEndian.PutUint16(m[2:], checksum(slices.Concat(pseudo, m)))
	p := ipv6(source, to, 0, slices.Concat(headers...), m)
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	p[7] = 1
	return ethernet(frame, from, etherIPv6, p)
}

// querierTable is what a guest gains of 10 frames to a group / what a neighbour
// loses of them, once the guest has sent one query to a bridge that snoops, as
// SECURITY.md has it.
const querierTable = `
| one query, and whose multicast it is after | default | and ipSpoofChk | libvirt | and macspoofchk | and ipSpoofChk |
|---|---|---|---|---|---|
| IGMP: a group's that the neighbour has not reported | 0 / 10 | 0 / 0 | 0 / 10 | 0 / 10 | 0 / 0 |
| the same, its query in a later fragment | 0 / 10 | 0 / 0 | 0 / 10 | 0 / 10 | 0 / 0 |
| IGMP, of one group: that group's, which the neighbour has reported | 0 / 10 | 0 / 0 | 0 / 10 | 0 / 10 | 0 / 0 |
| MLD: whoever looks for the neighbour's IPv6 address | 0 / 10 | 0 / 0 | 0 / 10 | 0 / 10 | 0 / 0 |
| the same, its query in a fragment | 0 / 10 | 0 / 0 | 0 / 10 | 0 / 10 | 0 / 0 |
| all of these, to a bridge with ` + "`mcast_snooping 0`" + ` | 0 / 0 | 0 / 0 | 0 / 0 | 0 / 0 | 0 / 0 |
`

const (
	group4, group4MAC       = "239.1.2.3", "01:00:5e:01:02:03"
	solicited, solicitedMAC = "ff02::1:ff00:3", "33:33:ff:00:00:03"
	// Nobody listens to these, so no neighbour hears the queries and reports again.
	nowhere4, nowhere6 = "01:00:5e:12:34:56", "33:33:12:34:56:78"
)

// queries are those of the table's rows; none in the last.
func (g *guest) queries() []packet {
	local := linkLocal(g)
	return []packet{
		igmpPacket(nowhere4, g.mac, hostile4, "224.0.0.1", 0, igmp(igmpQuery, "")),
		igmpPacket(nowhere4, g.mac, hostile4, "224.0.0.1", 5, igmp(igmpQuery, "")),
		igmpPacket(nowhere4, g.mac, hostile4, group4, 0, igmp(igmpQuery, group4)),
		mldPacket(nowhere6, g.mac, local, "ff02::1", mldQuery, hopByHop(58)),
		mldPacket(nowhere6, g.mac, local, "ff02::1", mldQuery, hopByHop(44), fragment6(58, 0, true)),
	}
}

func TestQuerier(t *testing.T) {
	t.Parallel()
	_, want, _ := strings.Cut(querierTable, "|---|---|---|---|---|---|\n")
	rows := strings.SplitAfter(strings.TrimSuffix(want, "\n"), "\n")
	for i, row := range rows {
		mode := port.Modes[i%len(port.Modes)] // the modes take turns: what a port is made of makes no difference here
		t.Run(fmt.Sprintf("%s %d", mode, i), func(t *testing.T) {
			t.Parallel()
			what, want, _ := strings.Cut(strings.TrimSpace(row), " | ")
			var got []string
			for _, c := range theftColumns {
				got = append(got, c.query(t, mode, i))
			}
			if diff := cmp.Diff(want, strings.Join(got, " | ")+" |"); diff != "" {
				t.Errorf("%s: frames (-want +got):\n%s", what, diff)
			}
		})
	}
}

// query is what comes of the query of one row.
func (c column) query(t *testing.T, mode port.Mode, row int) string {
	t.Helper()
	n := lanNew(t, 1500)
	n.withoutIPTables(t)
	g := c.guest(t, n, mode)
	neighbour := n.guest(t, port.Tap, c.table)
	queries := g.queries()
	if row < len(queries) {
		n.Run(t, "ip", "link", "set", lanBridge, "type", "bridge", "mcast_snooping", "1")
		queries = queries[row : row+1]
	}
	if row == 2 {
		n.outside.wire.Send(igmpPacket("01:00:5e:00:00:01", n.outside.mac, outside4, "224.0.0.1", 0, igmp(igmpQuery, "")))
		neighbour.wire.Send(igmpPacket(group4MAC, neighbour.mac, neighbour4, group4, 0, igmp(igmpReport, group4)))
		n.snoops()
	}
	stream := []shot{{packet: ethernet(group4MAC, n.outside.mac, etherIPv4, ipv4(outside4, group4, 17, 0, udp(1, 2)))}}
	if row == 3 || row == 4 {
		stream = []shot{{packet: ethernet(solicitedMAC, n.outside.mac, etherIPv6, ipv6(outside6, solicited, 58, icmp6(135, neighbour6)))}}
	}
	both := func() (gets, gains int) {
		gets = shoot(t, n.outside.wire, neighbour.wire, stream)[0]
		return gets, g.wire.Received(func(f []byte) bool { return strings.HasSuffix(string(f), stream[0].mark) })
	}
	gets, gains := both()
	if gets != 10 {
		t.Errorf("%s %v: the neighbour gets %d of 10 frames before", mode, c, gets)
	}
	for _, q := range queries {
		g.wire.Send(q)
	}
	n.snoops()
	now, nowGains := both()
	return fmt.Sprintf("%d / %d", max(0, nowGains-gains), gets-now)
}

// snoops waits until a bridge goes by a query: it lets all answer first, for a
// tenth of a second or two, by the kernel's clock.
func (n *lanNode) snoops() { time.Sleep(500 * time.Millisecond) }

// A query makes the guest's port one to which all multicast goes. Never to regard
// it as one (mcast_router 0) would be no help: then nobody gets any.
func TestQuerierThatIsNoRouterPort(t *testing.T) {
	t.Parallel()
	n := lanNew(t, 1500)
	g, neighbour := n.guest(t, port.Tap, port.Sticky), n.guest(t, port.Tap, port.Sticky)
	n.Run(t, "ip", "link", "set", lanBridge, "type", "bridge", "mcast_snooping", "1")
	n.Run(t, "bridge", "link", "set", "dev", g.PortName(), "mcast_router", "0")
	g.wire.Send(g.queries()[0])
	n.snoops()
	stream := []shot{{packet: ethernet(group4MAC, n.outside.mac, etherIPv4, ipv4(outside4, group4, 17, 0, udp(1, 2)))}}
	for _, at := range []*nstest.Wire{g.wire, neighbour.wire} {
		if got := shoot(t, n.outside.wire, at, stream)[0]; got != 0 {
			t.Errorf("%d of 10 frames arrive: SECURITY.md says that this closes nothing", got)
		}
	}
}

// A bridge keeps no more than 4,096 groups (mcast_hash_max): who reports more switches
// its snooping off, and all multicast goes to all.
func TestSnoopingSwitchedOff(t *testing.T) {
	t.Parallel()
	n := lanNew(t, 1500)
	g := column{port.Sticky, []guestOption{guestLocked, guestGuarded}}.guest(t, n, port.Tap)
	n.Run(t, "ip", "link", "set", lanBridge, "type", "bridge", "mcast_snooping", "1")
	for i := range 5000 {
		group := fmt.Sprintf("239.1.%d.%d", i>>8, i&0xff)
		g.wire.Send(igmpPacket(group4MAC, g.mac, hostile4, group, 0, igmp(igmpReport, group)))
	}
	lanUntil(t, "snooping is off", func() bool {
		return strings.Contains(n.Run(t, "ip", "-d", "link", "show", "dev", lanBridge), "mcast_snooping 0")
	})
}
