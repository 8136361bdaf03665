package attach_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// hostileTable is how many of 10 frames of each kind a guest gets out of its port,
// by configuration, as SECURITY.md has it.
const hostileTable = `
| what the guest sends | default | libvirt | and macspoofchk | and ipSpoofChk |
|---|---|---|---|---|
| from an invented MAC | 10 | 10 | 0 | 0 |
| from a neighbour's MAC | 10 | 10 | 0 | 0 |
| from a group's MAC, and from none | 0 | 0 | 0 | 0 |
| ARP: "I have the neighbour's address" | 10 | 10 | 10 | 0 |
| ARP: the same, as a request for all | 10 | 10 | 10 | 0 |
| ARP: the same, under the neighbour's MAC in ARP only | 10 | 10 | 10 | 0 |
| ARP: a probe that keeps the neighbour from its address | 10 | 10 | 10 | 0 |
| ARP of another kind of address | 10 | 10 | 10 | 0 |
| RARP: announces the neighbour's MAC | 10 | 10 | 10 | 0 |
| IPv4 from the neighbour's address | 10 | 10 | 10 | 0 |
| IPv4 fragment from the neighbour's address | 10 | 10 | 10 | 0 |
| IPv4 from no address, not to a DHCP server | 10 | 10 | 10 | 0 |
| DHCP answer | 10 | 10 | 10 | 0 |
| IPv6 from the neighbour's address | 10 | 10 | 10 | 0 |
| IPv6 from the router's link-local address | 10 | 10 | 10 | 0 |
| IPv6 with a header that ends too early | 10 | 10 | 10 | 0 |
| neighbour advertisement for the neighbour's address | 10 | 10 | 10 | 0 |
| the same, behind an extension header | 10 | 10 | 10 | 0 |
| the same, its target in a second fragment | 10 | 10 | 10 | 0 |
| solicitation that keeps the neighbour from its address | 10 | 10 | 10 | 0 |
| router advertisement | 10 | 10 | 10 | 0 |
| the same, behind extension headers | 10 | 10 | 10 | 0 |
| the same, in a first fragment | 10 | 10 | 10 | 0 |
| ICMPv6 redirect | 10 | 10 | 10 | 0 |
| DHCPv6 answer | 10 | 10 | 10 | 0 |
| announces a multicast router (IGMP, PIM, ICMPv6) | 10 | 10 | 10 | 0 |
| claims to be the multicast querier (IGMP, MLD) | 10 | 10 | 10 | 0 |
| the same, in a fragment | 10 | 10 | 10 | 0 |
| other kinds of IGMP, and from the neighbour's address | 10 | 10 | 10 | 0 |
| spanning tree (BPDU), to a bridge without STP | 10 | 10 | 10 | 0 |
| spanning tree of Cisco (PVST+) | 10 | 10 | 10 | 0 |
| pause frame | 0 | 0 | 0 | 0 |
| LACP, 802.1X and the rest of 01:80:c2:00:00:0x | 0 | 0 | 0 | 0 |
| LLDP | 0 | 0 | 0 | 0 |
| 802.1Q tag, to a bridge that is not VLAN-aware | 10 | 10 | 10 | 0 |
| 802.1ad tag, and two tags (QinQ) | 10 | 10 | 10 | 0 |
| the neighbour's IPv4 address behind a tag | 10 | 10 | 10 | 0 |
| priority tag (VLAN 0) | 10 | 10 | 10 | 0 |
| any other protocol | 10 | 10 | 10 | 0 |
| ARP, IPv4 or IPv6 that ends too early | 10 | 10 | 10 | 0 |
| larger than the MTU and a tag | 0 | 0 | 0 | 0 |
`

// honestTable is what must pass in any case.
const honestTable = `
| ARP request, reply, announcement | 10 | 10 | 10 | 10 |
| ARP probe for its own address | 10 | 10 | 10 | 10 |
| RARP of QEMU after a migration | 10 | 10 | 10 | 10 |
| IPv4 from its address | 10 | 10 | 10 | 10 |
| IPv4 fragments, the first and a later one | 10 | 10 | 10 | 10 |
| DHCP request without an address, and with one | 10 | 10 | 10 | 10 |
| IPv6 from its address, and its link-local one | 10 | 10 | 10 | 10 |
| IPv6 fragments, the first and a later one | 10 | 10 | 10 | 10 |
| duplicate address detection | 10 | 10 | 10 | 10 |
| solicitation of a neighbour, and its answer to one | 10 | 10 | 10 | 10 |
| router solicitation | 10 | 10 | 10 | 10 |
| multicast listener report, with an address and without | 10 | 10 | 10 | 10 |
| IGMP report and leave | 10 | 10 | 10 | 10 |
| DHCPv6 request | 10 | 10 | 10 | 10 |
| frame of the largest size | 10 | 10 | 10 | 10 |
`

// The addresses of the guest and of its neighbours.
const (
	hostile4, hostile6     = "10.0.0.2", "fd00::2"
	neighbour4, neighbour6 = "10.0.0.3", "fd00::3"
	outside4, outside6     = "10.0.0.1", "fd00::1"
	routerLocal            = "fe80::1"
)

// column is one configuration of the tables.
type column struct {
	table   port.Table
	options []guestOption
}

var columns = []column{
	{port.Kernel, nil},
	{port.Sticky, nil},
	{port.Sticky, []guestOption{guestLocked}},
	{port.Sticky, []guestOption{guestLocked, guestGuarded}},
}

func guestGuarded(a *port.Attachment) { a.Guarded = true }

// admit lets a guarded guest use the addresses.
func (g *guest) admit(t testing.TB, addresses ...string) {
	t.Helper()
	var list []netip.Addr
	for _, a := range addresses {
		list = append(list, netip.MustParseAddr(a))
	}
	g.node.Do(func() {
		site, err := attach.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer site.Close()
		if err := site.Admit(g.Attachment, guard.List(g.Guest, list)); err != nil {
			t.Fatal(err)
		}
	})
}

// hostile makes a guest of the column, with its addresses.
func (c column) guest(t testing.TB, n *lanNode, mode port.Mode) *guest {
	t.Helper()
	g := n.guest(t, mode, c.table, c.options...)
	if g.Guarded {
		g.admit(t, hostile4, hostile6)
	}
	return g
}

// hostile are the shots of hostileTable; several in one row count as their worst.
func (g *guest) hostile(neighbour *guest) []shot {
	me, other, invented := g.mac, neighbour.mac, lanMAC("02:00:00:00:ee:ee")
	nobody := lanMAC("00:00:00:00:00:00")
	local := linkLocal(g)
	advertised := slices.Concat(icmp6(136, neighbour6))
	bpdu := []byte{0, 38, 0x42, 0x42, 3, 0, 0, 0, 0, 0}
	out := g.node.outside.mac.String()
	var shots []shot
	row := func(what string, packets ...packet) {
		for _, p := range packets {
			shots = append(shots, shot{what: what, packet: p})
		}
	}
	row("from an invented MAC", ethernet(out, invented, etherIPv4, ipv4(hostile4, outside4, 17, 0, udp(1, 2))), ethernet(broadcast, invented, 0x88b5))
	row("from a neighbour's MAC", ethernet(out, other, etherIPv4, ipv4(hostile4, outside4, 17, 0, udp(1, 2))), ethernet(broadcast, other, etherARP, arpPacket(1, me, hostile4, nobody, outside4)))
	row("from a group's MAC, and from none", ethernet(broadcast, lanMAC(group4MAC), 0x88b5), ethernet(broadcast, nobody, 0x88b5))
	row(`ARP: "I have the neighbour's address"`, ethernet(out, me, etherARP, arpPacket(2, me, neighbour4, g.node.outside.mac, outside4)))
	row("ARP: the same, as a request for all", ethernet(broadcast, me, etherARP, arpPacket(1, me, neighbour4, nobody, neighbour4)))
	row("ARP: the same, under the neighbour's MAC in ARP only", ethernet(broadcast, me, etherARP, arpPacket(2, other, hostile4, nobody, outside4)), ethernet(broadcast, me, etherARP, arpPacket(2, invented, hostile4, nobody, hostile4)))
	row("ARP: a probe that keeps the neighbour from its address", ethernet(broadcast, me, etherARP, arpPacket(1, me, "0.0.0.0", nobody, neighbour4)))
	row("ARP of another kind of address", ethernet(broadcast, me, etherARP, append([]byte{0, 6}, arpPacket(2, me, hostile4, nobody, outside4)[2:]...)))
	row("RARP: announces the neighbour's MAC", ethernet(broadcast, me, etherRARP, arpPacket(3, other, "0.0.0.0", other, "0.0.0.0")), ethernet(broadcast, me, etherRARP, arpPacket(3, me, "0.0.0.0", other, "0.0.0.0")), ethernet(broadcast, me, etherRARP, arpPacket(4, me, "0.0.0.0", me, neighbour4)))
	row("IPv4 from the neighbour's address", ethernet(out, me, etherIPv4, ipv4(neighbour4, outside4, 17, 0, udp(1, 2))), ethernet(broadcast, me, etherIPv4, ipv4(neighbour4, "255.255.255.255", 17, 0, udp(68, 67))))
	row("IPv4 fragment from the neighbour's address", ethernet(out, me, etherIPv4, ipv4(neighbour4, outside4, 17, 0x2000, udp(1, 2))), ethernet(out, me, etherIPv4, ipv4(neighbour4, outside4, 17, 1, udp(1, 2))))
	row("IPv4 from no address, not to a DHCP server", ethernet(out, me, etherIPv4, ipv4("0.0.0.0", outside4, 17, 0, udp(68, 67))), ethernet(broadcast, me, etherIPv4, ipv4("0.0.0.0", "255.255.255.255", 17, 0, udp(68, 53))), ethernet(broadcast, me, etherIPv4, ipv4("0.0.0.0", "255.255.255.255", 17, 0x2001, udp(68, 67))))
	row("DHCP answer", ethernet(broadcast, me, etherIPv4, ipv4(hostile4, "255.255.255.255", 17, 0, udp(67, 68))), ethernet(out, me, etherIPv4, ipv4(hostile4, outside4, 17, 0x2000, udp(67, 68))))
	row("IPv6 from the neighbour's address", ethernet(out, me, etherIPv6, ipv6(neighbour6, outside6, 17, udp(1, 2))))
	row("IPv6 from the router's link-local address", ethernet(everyNode, me, etherIPv6, ipv6(routerLocal, "ff02::1", 17, udp(1, 2))))
	row("IPv6 with a header that ends too early", ethernet(out, me, etherIPv6, ipv6(hostile6, outside6, 0, []byte{58, 9, 1, 4})), ethernet(out, me, etherIPv6, ipv6(hostile6, outside6, 44, fragment6(60, 0, true), []byte{58, 9, 1, 4})))
	row("neighbour advertisement for the neighbour's address", ethernet(everyNode, me, etherIPv6, ipv6(hostile6, "ff02::1", 58, advertised)), ethernet(everyNode, me, etherIPv6, ipv6(neighbour6, "ff02::1", 58, advertised)), ethernet(everyNode, me, etherIPv6, ipv6(local, "ff02::1", 58, icmp6(136, routerLocal))))
	row("the same, behind an extension header", ethernet(everyNode, me, etherIPv6, ipv6(hostile6, "ff02::1", 0, hopByHop(60), destination(58), advertised)))
	row("the same, its target in a second fragment", ethernet(everyNode, me, etherIPv6, ipv6(hostile6, "ff02::1", 44, fragment6(58, 0, true), advertised[:8])))
	row("solicitation that keeps the neighbour from its address", ethernet("33:33:ff:00:00:03", me, etherIPv6, ipv6("::", "ff02::1:ff00:3", 58, icmp6(135, neighbour6))))
	row("router advertisement", ethernet(everyNode, me, etherIPv6, ipv6(local, "ff02::1", 58, icmp6(134, ""))), ethernet(everyNode, me, etherIPv6, ipv6(routerLocal, "ff02::1", 58, icmp6(134, ""))))
	row("the same, behind extension headers", ethernet(everyNode, me, etherIPv6, ipv6(local, "ff02::1", 0, hopByHop(60), destination(58), icmp6(134, ""))))
	row("the same, in a first fragment", ethernet(everyNode, me, etherIPv6, ipv6(local, "ff02::1", 44, fragment6(58, 0, true), icmp6(134, ""))), ethernet(everyNode, me, etherIPv6, ipv6(local, "ff02::1", 44, fragment6(60, 0, true), destination(58), icmp6(134, ""))))
	row("ICMPv6 redirect", ethernet(out, me, etherIPv6, ipv6(local, outside6, 58, icmp6(137, local))))
	row("DHCPv6 answer", ethernet(out, me, etherIPv6, ipv6(local, outside6, 17, udp(547, 546))), ethernet(out, me, etherIPv6, ipv6(local, outside6, 60, destination(17), udp(547, 546))))
	row("announces a multicast router (IGMP, PIM, ICMPv6)", igmpPacket("01:00:5e:00:00:6a", me, hostile4, "224.0.0.106", 0, igmp(igmpRouter, "")), ethernet("01:00:5e:00:00:0d", me, etherIPv4, ipv4(hostile4, "224.0.0.13", 103, 0, []byte{0x20, 0, 0xdf, 0xff})), ethernet("33:33:00:00:00:6a", me, etherIPv6, ipv6(local, "ff02::6a", 58, icmp6(mldRouter, ""))))
	queries := g.queries()
	row("claims to be the multicast querier (IGMP, MLD)", queries[0], queries[2], queries[3])
	row("the same, in a fragment", queries[1], queries[4], igmpPacket(nowhere4, me, hostile4, "224.0.0.1", 0x2000, igmp(igmpQuery, "")))
	row("other kinds of IGMP, and from the neighbour's address", igmpPacket(group4MAC, me, hostile4, group4, 0, igmp(0x13, "")), igmpPacket(group4MAC, me, neighbour4, group4, 0, igmp(igmpReport, group4)))
	row("spanning tree (BPDU), to a bridge without STP", ethernet("01:80:c2:00:00:00", me, 38, bpdu[2:]))
	row("spanning tree of Cisco (PVST+)", ethernet("01:00:0c:cc:cc:cd", me, 50, []byte{0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0x0b}))
	row("pause frame", ethernet("01:80:c2:00:00:01", me, 0x8808, []byte{0, 1, 255, 255}))
	for i := 2; i < 16; i++ {
		if i != 14 {
			row("LACP, 802.1X and the rest of 01:80:c2:00:00:0x", ethernet(fmt.Sprintf("01:80:c2:00:00:%02x", i), me, 0x8809, []byte{1, 1}))
		}
	}
	row("LLDP", ethernet("01:80:c2:00:00:0e", me, 0x88cc, []byte{2, 7, 4}))
	mine := ipv4(hostile4, outside4, 17, 0, udp(1, 2))
	row("802.1Q tag, to a bridge that is not VLAN-aware", ethernet(out, me, etherQ, vlanTag(5, etherIPv4), mine), ethernet(broadcast, me, etherQ, vlanTag(5, etherARP), arpPacket(1, me, hostile4, nobody, outside4)))
	row("802.1ad tag, and two tags (QinQ)", ethernet(out, me, etherAD, vlanTag(5, etherIPv4), mine), ethernet(out, me, etherQ, vlanTag(5, etherQ), vlanTag(6, etherIPv4), mine), ethernet(out, me, etherAD, vlanTag(5, etherQ), vlanTag(6, etherIPv4), mine))
	row("the neighbour's IPv4 address behind a tag", ethernet(out, me, etherQ, vlanTag(5, etherIPv4), ipv4(neighbour4, outside4, 17, 0, udp(1, 2))))
	row("priority tag (VLAN 0)", ethernet(out, me, etherQ, vlanTag(0xe000, etherIPv4), mine))
	row("any other protocol", ethernet(out, me, 0x8137), ethernet(out, me, 0x88b5), ethernet(out, me, 3, []byte{0xe0, 0xe0, 3}))
	row("ARP, IPv4 or IPv6 that ends too early", ethernet(broadcast, me, etherARP, arpPacket(2, me, hostile4, nobody, outside4)[:7]), ethernet(out, me, etherIPv4), ethernet(out, me, etherIPv6))
	if g.Mode != port.Veth { // there the kernel refuses it
		row("larger than the MTU and a tag", ethernet(out, me, etherIPv4, ipv4(hostile4, outside4, 17, 0, udp(1, 2, make([]byte, 1505-28-markLen)...))))
	}
	return shots
}

// honest are those of honestTable.
func (g *guest) honest() []shot {
	me, nobody, local := g.mac, lanMAC("00:00:00:00:00:00"), linkLocal(g)
	out := g.node.outside.mac.String()
	var shots []shot
	row := func(what string, packets ...packet) {
		for _, p := range packets {
			shots = append(shots, shot{what: what, packet: p})
		}
	}
	row("ARP request, reply, announcement", ethernet(broadcast, me, etherARP, arpPacket(1, me, hostile4, nobody, outside4)), ethernet(out, me, etherARP, arpPacket(2, me, hostile4, g.node.outside.mac, outside4)), ethernet(broadcast, me, etherARP, arpPacket(1, me, hostile4, nobody, hostile4)))
	row("ARP probe for its own address", ethernet(broadcast, me, etherARP, arpPacket(1, me, "0.0.0.0", nobody, hostile4)))
	row("RARP of QEMU after a migration", ethernet(broadcast, me, etherRARP, arpPacket(3, me, "0.0.0.0", me, "0.0.0.0")))
	row("IPv4 from its address", ethernet(out, me, etherIPv4, ipv4(hostile4, outside4, 6, 0, udp(1, 2))), ethernet(out, me, etherIPv4, ipv4(hostile4, outside4, 1, 0, udp(1, 2))))
	row("IPv4 fragments, the first and a later one", ethernet(out, me, etherIPv4, ipv4(hostile4, outside4, 17, 0x2000, udp(1, 2))), ethernet(out, me, etherIPv4, ipv4(hostile4, outside4, 17, 1, udp(1, 2))), ethernet(out, me, etherIPv4, ipv4(hostile4, outside4, 17, 1, udp(67, 68))))
	row("DHCP request without an address, and with one", ethernet(broadcast, me, etherIPv4, ipv4("0.0.0.0", "255.255.255.255", 17, 0, udp(68, 67))), ethernet(out, me, etherIPv4, ipv4(hostile4, outside4, 17, 0, udp(68, 67))))
	row("IPv6 from its address, and its link-local one", ethernet(out, me, etherIPv6, ipv6(hostile6, outside6, 17, udp(1, 2))), ethernet(out, me, etherIPv6, ipv6(local, outside6, 6, udp(1, 2))), ethernet(out, me, etherIPv6, ipv6(hostile6, outside6, 58, icmp6(128, ""))))
	row("IPv6 fragments, the first and a later one", ethernet(out, me, etherIPv6, ipv6(hostile6, outside6, 44, fragment6(58, 0, true), icmp6(128, ""))), ethernet(out, me, etherIPv6, ipv6(hostile6, outside6, 44, fragment6(58, 1, false), icmp6(134, ""))), ethernet(out, me, etherIPv6, ipv6(hostile6, outside6, 44, fragment6(17, 1, false), udp(547, 546))))
	row("duplicate address detection", ethernet("33:33:ff:00:00:02", me, etherIPv6, ipv6("::", "ff02::1:ff00:2", 58, icmp6(135, hostile6))), ethernet("33:33:ff:00:00:02", me, etherIPv6, ipv6("::", "ff02::1:ff00:2", 58, icmp6(135, local))))
	row("solicitation of a neighbour, and its answer to one", ethernet("33:33:ff:00:00:01", me, etherIPv6, ipv6(hostile6, "ff02::1:ff00:1", 58, icmp6(135, outside6))), ethernet(out, me, etherIPv6, ipv6(hostile6, outside6, 58, icmp6(136, hostile6))), ethernet(out, me, etherIPv6, ipv6(local, outside6, 58, icmp6(136, hostile6))), ethernet(out, me, etherIPv6, ipv6(local, outside6, 58, icmp6(136, local))))
	row("router solicitation", ethernet("33:33:00:00:00:02", me, etherIPv6, ipv6(local, "ff02::2", 58, icmp6(133, ""))), ethernet("33:33:00:00:00:02", me, etherIPv6, ipv6("::", "ff02::2", 58, icmp6(133, ""))))
	row("multicast listener report, with an address and without", ethernet("33:33:00:00:00:16", me, etherIPv6, ipv6("::", "ff02::16", 0, hopByHop(58), icmp6(143, ""))), ethernet("33:33:00:00:00:16", me, etherIPv6, ipv6(local, "ff02::16", 0, hopByHop(58), icmp6(143, ""))), ethernet("33:33:00:00:00:16", me, etherIPv6, ipv6("::", "ff02::16", 0, hopByHop(58), icmp6(131, ""))))
	row("IGMP report and leave", igmpPacket("01:00:5e:00:00:16", me, hostile4, "224.0.0.22", 0, igmp(0x22, "")), igmpPacket(group4MAC, me, hostile4, group4, 0, igmp(igmpReport, group4)), igmpPacket(group4MAC, me, hostile4, group4, 0, igmp(0x12, group4)), igmpPacket("01:00:5e:00:00:02", me, hostile4, "224.0.0.2", 0, igmp(0x17, group4)))
	row("DHCPv6 request", ethernet(out, me, etherIPv6, ipv6(local, outside6, 17, udp(546, 547))))
	row("frame of the largest size", ethernet(out, me, etherIPv4, ipv4(hostile4, outside4, 17, 0, udp(1, 2, make([]byte, 1500-28-markLen)...))))
	return shots
}

func linkLocal(g *guest) string {
	words := strings.Fields(guard.List(g.Guest, []netip.Addr{netip.MustParseAddr(hostile6)}))
	return words[slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "fe80") })]
}

// rowsOf are the lines of a table for what was measured: columns of shots, the
// strongest one of a row counting where it should not pass, the weakest where it should.
func rowsOf(shots []shot, counts [][]int, worst func(...int) int) string {
	var rows strings.Builder
	rows.WriteString("\n")
	for i := 0; i < len(shots); {
		end := i
		for end < len(shots) && shots[end].what == shots[i].what {
			end++
		}
		fmt.Fprintf(&rows, "| %s |", shots[i].what)
		for _, column := range counts {
			fmt.Fprintf(&rows, " %d |", worst(column[i:end]...))
		}
		rows.WriteString("\n")
		i = end
	}
	return rows.String()
}

func atMost(n ...int) int  { return slices.Max(n) }
func atLeast(n ...int) int { return slices.Min(n) }

func TestHostile(t *testing.T) {
	t.Parallel()
	for _, mode := range port.Modes {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			var bad, good [][]int
			var hostile, honest []shot
			for _, c := range columns {
				n := lanNew(t, 1500)
				n.withoutIPTables(t)
				g := c.guest(t, n, mode)
				neighbour := n.guest(t, port.Veth, c.table)
				hostile, honest = g.hostile(neighbour), g.honest()
				bad = append(bad, shoot(t, g.wire, n.outside.wire, hostile))
				good = append(good, shoot(t, g.wire, n.outside.wire, honest))
			}
			n := lanNew(t, 1500)
			n.withoutIPTables(t)
			alone := column{port.Kernel, []guestOption{guestGuarded}}.guest(t, n, mode)
			if got := shoot(t, alone.wire, n.outside.wire, alone.hostile(n.guest(t, port.Veth, port.Kernel))); slices.Max(got) > 0 {
				t.Errorf("ipSpoofChk without libvirt lets pass %v", got)
			}
			_, want, _ := strings.Cut(hostileTable, "|---|---|---|---|---|")
			if mode == port.Veth {
				want, _, _ = strings.Cut(want, "| larger than")
			}
			if diff := cmp.Diff(want, rowsOf(hostile, bad, atMost)); diff != "" {
				t.Errorf("hostile frames (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(honestTable, rowsOf(honest, good, atLeast)); diff != "" {
				t.Errorf("honest frames (-want +got):\n%s", diff)
			}
		})
	}
}

// TestHostilePage holds the page against what is measured, and by which test.
func TestHostilePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{hostileTable, honestTable, theftTable, querierTable, vlanTable} {
		if !strings.Contains(string(page), table) {
			t.Errorf("SECURITY.md does not have the measured table:\n%s", table)
		}
	}
	files, _ := filepath.Glob("*_test.go") // the pattern is well-formed
	var tests []byte
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		tests = append(tests, text...)
	}
	for _, name := range regexp.MustCompile("`((Test|Benchmark)[A-Za-z]+)`").FindAllSubmatch(page, -1) {
		if !bytes.Contains(tests, fmt.Appendf(nil, "func %s(", name[1])) {
			t.Errorf("SECURITY.md names %s, which there is not", name[1])
		}
	}
}

// withoutIPTables keeps the kernel from cutting and dropping damaged packets for
// the sake of iptables, where it does that on bridges.
func (n *lanNode) withoutIPTables(t testing.TB) {
	t.Helper()
	n.Do(func() {
		for _, family := range []string{"iptables", "ip6tables"} {
			err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+family, []byte("0"), 0)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
	})
}
