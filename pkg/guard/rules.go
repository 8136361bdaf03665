package guard

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nft"
)

// The chains: the first sees every frame that enters any bridge of the node, the
// others those of one ethertype from a guarded port.
const (
	all  = "guests"
	arp  = "guests_arp"
	rarp = "guests_rarp"
	ip4  = "guests_ipv4"
	ip6  = "guests_ipv6"
)

var chains = []string{all, arp, rarp, ip4, ip6}

// rule is what lets a frame pass or ends it. A rule that looks at a part that the
// frame does not have says nothing; so only rules that have seen all they must
// know let anything pass, and each chain ends by dropping the rest.
type rule struct {
	chain string
	says  string
	steps []nft.Expr
}

// rules are the same for every port: what an attachment adds is in the sets. None
// looks below a VLAN tag: it makes an ethertype of its own, which is dropped.
var rules = []rule{
	{all, "other ports", join(iface, nft.NotIn(ports, nft.R1), nft.Accept())},
	{all, "not its MAC", join(iface, source, nft.NotIn(macs, nft.R1), nft.Drop())},
	{all, "", join(etherType(unix.ETH_P_IP), nft.Goto(ip4))},
	{all, "", join(etherType(unix.ETH_P_IPV6), nft.Goto(ip6))},
	{all, "", join(etherType(unix.ETH_P_ARP), nft.Goto(arp))},
	{all, "", join(etherType(unix.ETH_P_RARP), nft.Goto(rarp))},
	{all, "no other protocol, no VLAN tag", join(nft.Drop())},

	{arp, "not Ethernet and IPv4", join(network(0, 6), differs(0, 1, 8, 0, 6, 4), nft.Drop())},
	{arp, "not its MAC as sender", join(iface, network(8, 6), nft.NotIn(macs, nft.R1), nft.Drop())},
	{arp, "its address", join(iface, network(14, 4), nft.In(ipv4, nft.R1), nft.Accept())},
	{arp, "probe for its address", join(network(14, 4), equals(0, 0, 0, 0), iface, network(24, 4), nft.In(ipv4, nft.R1), nft.Accept())},
	{arp, "", join(nft.Drop())},

	// QEMU sends one when a migrated guest starts.
	{rarp, "announces another address", join(iface, network(18, 6), nft.NotIn(macs, nft.R1), nft.Drop())},
	{rarp, "announces its MAC", join(network(0, 8), equals(0, 1, 8, 0, 6, 4, 0, 3), network(14, 4), equals(0, 0, 0, 0), network(24, 4), equals(0, 0, 0, 0),
		iface, network(8, 6), nft.In(macs, nft.R1), nft.Accept())},
	{rarp, "", join(nft.Drop())},

	{ip4, "later fragment of its address", join(later4, iface, network(12, 4), nft.In(ipv4, nft.R1), nft.Accept())},
	{ip4, "other later fragment", join(later4, nft.Drop())},
	{ip4, "DHCP server", join(protocol(unix.IPPROTO_UDP), transport(0, 2), equals(0, 67), nft.Drop())},
	{ip4, "UDP from its address", join(protocol(unix.IPPROTO_UDP), transport(0, 2), iface, network(12, 4), nft.In(ipv4, nft.R1), nft.Accept())},
	{ip4, "not UDP, from its address", join(protocolNot(unix.IPPROTO_UDP), iface, network(12, 4), nft.In(ipv4, nft.R1), nft.Accept())},
	{ip4, "DHCP client", join(network(12, 8), equals(0, 0, 0, 0, 255, 255, 255, 255), protocol(unix.IPPROTO_UDP), transport(0, 4), equals(0, 68, 0, 67), nft.Accept())},
	{ip4, "", join(nft.Drop())},

	{ip6, "later fragment of its address", join(later6, iface, network(8, 16), nft.In(ipv6, nft.R1), nft.Accept())},
	{ip6, "other later fragment", join(later6, nft.Drop())},
	{ip6, "DHCP server", join(protocol(unix.IPPROTO_UDP), transport(0, 2), equals(547>>8, 547&255), nft.Drop())},
	{ip6, "router advertisement", join(icmp6(134), nft.Drop())},
	{ip6, "redirect", join(icmp6(137), nft.Drop())},
	{ip6, "looks for a user of its address", join(unspecified, icmp6(135), iface, transport(8, 16), nft.In(ipv6, nft.R1), nft.Accept())},
	{ip6, "multicast listener, router solicitation", join(unspecified, protocol(unix.IPPROTO_ICMPV6), transport(0, 1),
		nft.Compare(nft.R2, unix.NFT_CMP_GTE, []byte{131}), nft.Compare(nft.R2, unix.NFT_CMP_LTE, []byte{133}), nft.Accept())},
	{ip6, "multicast listener, version 2", join(unspecified, icmp6(143), nft.Accept())},
	{ip6, "not its address", join(iface, network(8, 16), nft.NotIn(ipv6, nft.R1), nft.Drop())},
	{ip6, "advertises its address", join(icmp6(136), iface, transport(8, 16), nft.In(ipv6, nft.R1), nft.Accept())},
	{ip6, "advertises another address", join(icmp6(136), nft.Drop())},
	{ip6, "ICMP from its address", join(protocol(unix.IPPROTO_ICMPV6), transport(0, 1), nft.Accept())},
	{ip6, "UDP from its address", join(protocol(unix.IPPROTO_UDP), transport(0, 2), nft.Accept())},
	{ip6, "neither, from its address", join(protocolNot(unix.IPPROTO_ICMPV6), differs(unix.IPPROTO_UDP), nft.Accept())},
	{ip6, "", join(nft.Drop())},
}

// comment is how a rule is recognised: it changes with the rule's steps.
func (r rule) comment() string {
	sum := sha256.Sum256(nft.Expressions(r.steps...).Serialize())
	if r.says == "" {
		return fmt.Sprintf("%x", sum[:4])
	}
	return fmt.Sprintf("%s %x", r.says, sum[:4])
}

// join makes one list of single steps and of lists.
func join(parts ...any) (steps []nft.Expr) {
	for _, p := range parts {
		switch p := p.(type) {
		case nft.Expr:
			steps = append(steps, p)
		case []nft.Expr:
			steps = append(steps, p...)
		}
	}
	return steps
}

// The name of the port stands in the first register, what it is looked up with in
// the second: together they are the key of a set.
var (
	iface  = nft.Meta(unix.NFT_META_IIFNAME, nft.R1)
	source = nft.Payload(unix.NFT_PAYLOAD_LL_HEADER, 6, 6, nft.R2)

	// later are the fragments but the first. The kernel has been seen to take their
	// data for a transport header.
	later4 = []nft.Expr{network(6, 2), nft.Mask(nft.R2, []byte{0x1f, 0xff}), differs(0, 0)}
	later6 = []nft.Expr{nft.Extension(unix.IPPROTO_FRAGMENT, 2, 2, nft.R2), nft.Mask(nft.R2, []byte{0xff, 0xf8}), differs(0, 0)}

	unspecified = []nft.Expr{network(8, 16), equals(make([]byte, 16)...)}
)

func network(offset, length uint32) nft.Expr {
	return nft.Payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, length, nft.R2)
}

// transport finds nothing in a first fragment that ends before.
func transport(offset, length uint32) nft.Expr {
	return nft.Payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, length, nft.R2)
}

func equals(data ...byte) nft.Expr { return nft.Compare(nft.R2, unix.NFT_CMP_EQ, data) }

func differs(data ...byte) nft.Expr { return nft.Compare(nft.R2, unix.NFT_CMP_NEQ, data) }

func etherType(t uint16) []nft.Expr {
	return []nft.Expr{nft.Payload(unix.NFT_PAYLOAD_LL_HEADER, 12, 2, nft.R2), equals(byte(t>>8), byte(t))}
}

// protocol is that behind all extension headers. It cannot be told of a packet with
// a damaged header.
func protocol(number byte) []nft.Expr {
	return []nft.Expr{nft.Meta(unix.NFT_META_L4PROTO, nft.R2), equals(number)}
}

func protocolNot(number byte) []nft.Expr {
	return []nft.Expr{nft.Meta(unix.NFT_META_L4PROTO, nft.R2), differs(number)}
}

func icmp6(kind byte) []nft.Expr {
	return slices.Concat(protocol(unix.IPPROTO_ICMPV6), []nft.Expr{transport(0, 1), equals(kind)})
}
