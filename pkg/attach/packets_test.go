package attach_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// packet is what a guest sends, without the mark that follows: that counts in the
// lengths of IP, behind which a bridge may cut a frame off.
type packet []byte

const markLen = len("shot-000000001")

const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherRARP = 0x8035
	etherQ    = 0x8100
	etherAD   = 0x88a8
	etherIPv6 = 0x86dd

	broadcast = "ff:ff:ff:ff:ff:ff"
	everyNode = "33:33:00:00:00:01"
)

func ethernet(to string, from net.HardwareAddr, kind uint16, parts ...[]byte) packet {
	return slices.Concat(packet(lanMAC(to)), packet(from), be16(kind), slices.Concat(parts...))
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func ipBytes(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

// arpPacket is a request (1) or a reply (2), or of RARP (3).
func arpPacket(op uint16, senderMAC net.HardwareAddr, sender string, targetMAC net.HardwareAddr, target string) []byte {
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4}, be16(op), senderMAC, ipBytes(sender), targetMAC, ipBytes(target))
}

// ipv4 has the fragment field as given: 0x2000 says that more follow.
func ipv4(from, to string, protocol byte, fragment uint16, payload ...[]byte) []byte {
	body := slices.Concat(payload...)
	header := slices.Concat([]byte{0x45, 0}, be16(uint16(20+len(body)+markLen)), be16(7), be16(fragment), []byte{64, protocol, 0, 0}, ipBytes(from), ipBytes(to))
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return append(header, body...)
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func ipv6(from, to string, next byte, payload ...[]byte) []byte {
	body := slices.Concat(payload...)
	return slices.Concat([]byte{0x60, 0, 0, 0}, be16(uint16(len(body)+markLen)), []byte{next, 255}, ipBytes(from), ipBytes(to), body)
}

func udp(from, to uint16, payload ...byte) []byte {
	return slices.Concat(be16(from), be16(to), be16(uint16(8+len(payload))), be16(0), payload)
}

// icmp6 of a kind, about a target where there is one.
func icmp6(kind byte, target string) []byte {
	b := []byte{kind, 0, 0, 0, 0, 0, 0, 0}
	if target != "" {
		b = append(b, ipBytes(target)...)
	}
	return b
}

// Extension headers of IPv6 (RFC 8200): 8 bytes each.
func hopByHop(next byte) []byte    { return []byte{next, 0, 5, 2, 0, 0, 1, 0} }
func destination(next byte) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} }

// fragment6 is that of a packet; offset in units of 8 bytes.
func fragment6(next byte, offset uint16, more bool) []byte {
	field := offset << 3
	if more {
		field |= 1
	}
	return slices.Concat([]byte{next, 0}, be16(field), []byte{0, 0, 0, 9})
}

func vlanTag(id, kind uint16) []byte { return append(be16(id), be16(kind)...) }

// shot is ten copies of a packet, and what came of them.
type shot struct {
	what string
	packet
	mark string
}

// shoot sends the packets and counts how many of each arrive. Time is counted in
// naps, as in lanCount.
func shoot(t testing.TB, from, at *nstest.Wire, shots []shot) (counts []int) {
	t.Helper()
	for i := range shots {
		shots[i].mark = fmt.Sprintf("shot-%09d", lanSerial.Add(1))
		frame := append(slices.Clone(shots[i].packet), shots[i].mark...)
		for range 10 {
			from.Send(frame)
		}
	}
	const nap, patience = 2 * time.Millisecond, 150
	for idle, arrived := 0, 0; idle < patience; idle++ {
		if now := at.Received(nil); now != arrived {
			arrived, idle = now, 0
		}
		time.Sleep(nap)
	}
	byMark := map[string]int{}
	for _, frame := range at.Frames() {
		byMark[string(frame[max(0, len(frame)-markLen):])]++
	}
	for _, s := range shots {
		counts = append(counts, byMark[s.mark])
	}
	return counts
}
