package guard

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

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
	igmp = "guests_igmp"
	ip6  = "guests_ipv6"
)

var chains = []string{all, arp, rarp, ip4, igmp, ip6}

// rule is what lets a frame pass or ends it. A rule that looks at a part that the
// frame does not have says nothing; so only rules that have seen all they must
// know let anything pass, and each chain ends by dropping the rest.
type rule struct {
	chain string
	says  string
	steps string // words, see steps
}

// rules are the same for every port: what an attachment adds is in the sets. None
// looks below a VLAN tag: it makes an ethertype of its own, which is dropped.
var rules = []rule{
	{all, "other ports", "port !ports accept"},
	{all, "not its MAC", "port link:6,6 !macs drop"},
	{all, "", "link:12,2 =0800 >" + ip4},
	{all, "", "link:12,2 =86dd >" + ip6},
	{all, "", "link:12,2 =0806 >" + arp},
	{all, "", "link:12,2 =8035 >" + rarp},
	{all, "no other protocol, no VLAN tag", "drop"},

	{arp, "not Ethernet and IPv4", "net:0,6 !=000108000604 drop"},
	{arp, "not its MAC as sender", "port net:8,6 !macs drop"},
	{arp, "its address", "port net:14,4 @ipv4 accept"},
	{arp, "probe for its address", "net:14,4 =00000000 port net:24,4 @ipv4 accept"},
	{arp, "", "drop"},

	// QEMU sends one when a migrated guest starts.
	{rarp, "announces another address", "port net:18,6 !macs drop"},
	{rarp, "announces its MAC", "net:0,8 =0001080006040003 net:14,4 =00000000 net:24,4 =00000000 port net:8,6 @macs accept"},
	{rarp, "", "drop"},

	// A bridge believes any query, and then sends multicast to nobody but those who
	// report (net/bridge/br_multicast.c); it looks for one in later fragments too.
	{ip4, "", "net:9,1 =02 >" + igmp},
	{igmp, "fragment", "net:6,2 &3fff !=0000 drop"},
	{igmp, "not its address", "port net:12,4 !ipv4 drop"},
	{igmp, "report, version 1", "transport:0,1 =12 accept"},
	{igmp, "report and leave, version 2", "transport:0,1 ge16 le17 accept"},
	{igmp, "report, version 3", "transport:0,1 =22 accept"},
	{igmp, "", "drop"},

	// The kernel has been seen to take the data of a later fragment for a transport
	// header.
	{ip4, "later fragment of its address", later4 + "port net:12,4 @ipv4 accept"},
	{ip4, "other later fragment", later4 + "drop"},
	{ip4, "DHCP server", udp + "transport:0,2 =0043 drop"},
	{ip4, "UDP from its address", udp + "transport:0,2 port net:12,4 @ipv4 accept"},
	{ip4, "multicast router", "protocol =67 drop"},
	{ip4, "not UDP, from its address", "protocol !=11 port net:12,4 @ipv4 accept"},
	{ip4, "DHCP client", "net:12,8 =00000000ffffffff " + udp + "transport:0,4 =00440043 accept"},
	{ip4, "", "drop"},

	{ip6, "later fragment of its address", later6 + "port net:8,16 @ipv6 accept"},
	{ip6, "other later fragment", later6 + "drop"},
	{ip6, "DHCP server", udp + "transport:0,2 =0223 drop"},
	{ip6, "router advertisement", icmp6 + "=86 drop"},
	{ip6, "redirect", icmp6 + "=89 drop"},
	{ip6, "multicast querier", icmp6 + "=82 drop"},
	{ip6, "multicast router", icmp6 + "=97 drop"},
	{ip6, "looks for a user of its address", nobody + icmp6 + "=87 port transport:8,16 @ipv6 accept"},
	{ip6, "multicast listener, router solicitation", nobody + icmp6 + "ge83 le85 accept"},
	{ip6, "multicast listener, version 2", nobody + icmp6 + "=8f accept"},
	{ip6, "not its address", "port net:8,16 !ipv6 drop"},
	{ip6, "advertises its address", icmp6 + "=88 port transport:8,16 @ipv6 accept"},
	{ip6, "advertises another address", icmp6 + "=88 drop"},
	{ip6, "ICMP from its address", icmp6 + "accept"},
	{ip6, "UDP from its address", udp + "transport:0,2 accept"},
	{ip6, "neither, from its address", "protocol !=3a !=11 accept"},
	{ip6, "", "drop"},
}

// Beginnings of steps. The protocol is that behind all extension headers, and is not
// known of a packet with a damaged header; a transport header is not found in a
// first fragment that ends before.
const (
	udp    = "protocol =11 "
	icmp6  = "protocol =3a transport:0,1 " // and its type
	nobody = "net:8,16 =00000000000000000000000000000000 "
	later4 = "net:6,2 &1fff !=0000 "
	later6 = "fragment:2,2 &fff8 !=0000 "
)

// expressions are the steps of the rule. "port" puts the port's name into the first
// register; what a header has at offset,length, or the protocol, goes into the
// second, and is compared (with hexadecimal digits) there, or looked for in a set
// behind the name (@ in, ! not in).
func (r rule) expressions() (list []nft.Expr) {
	for _, word := range strings.Fields(r.steps) {
		list = append(list, step(word))
	}
	return list
}

func step(word string) nft.Expr {
	switch word {
	case "accept":
		return nft.Accept()
	case "drop":
		return nft.Drop()
	case "port":
		return nft.Meta(unix.NFT_META_IIFNAME, nft.R1)
	case "protocol":
		return nft.Meta(unix.NFT_META_L4PROTO, nft.R2)
	}
	if header, at, is := strings.Cut(word, ":"); is {
		return load(header, at)
	}
	for _, c := range comparisons {
		if digits, is := strings.CutPrefix(word, c.word); is {
			if data, err := hex.DecodeString(digits); err == nil {
				return c.step(string(data))
			}
		}
	}
	switch name := word[1:]; word[0] {
	case '@':
		return nft.In(name, nft.R1)
	case '!':
		return nft.NotIn(name, nft.R1)
	case '>':
		return nft.Goto(name)
	}
	panic("guard: a rule with the step " + word)
}

var comparisons = []struct {
	word string
	step func(data string) nft.Expr
}{
	{"=", func(data string) nft.Expr { return nft.Compare(nft.R2, unix.NFT_CMP_EQ, data) }},
	{"!=", func(data string) nft.Expr { return nft.Compare(nft.R2, unix.NFT_CMP_NEQ, data) }},
	{"ge", func(data string) nft.Expr { return nft.Compare(nft.R2, unix.NFT_CMP_GTE, data) }},
	{"le", func(data string) nft.Expr { return nft.Compare(nft.R2, unix.NFT_CMP_LTE, data) }},
	{"&", func(data string) nft.Expr { return nft.Mask(nft.R2, data) }},
}

func load(header, at string) nft.Expr {
	var offset, length uint32
	if _, err := fmt.Sscanf(at, "%d,%d", &offset, &length); err != nil {
		panic("guard: a rule that loads " + at)
	}
	switch header {
	case "link":
		return nft.Payload(unix.NFT_PAYLOAD_LL_HEADER, offset, length, nft.R2)
	case "net":
		return nft.Payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, length, nft.R2)
	case "transport":
		return nft.Payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, length, nft.R2)
	case "fragment":
		return nft.Extension(unix.IPPROTO_FRAGMENT, offset, length, nft.R2)
	}
	panic("guard: a rule that loads from " + header)
}

// comment is how a rule is recognised: it changes with the rule's steps.
func (r rule) comment() string {
	sum := sha256.Sum256([]byte(r.steps))
	if r.says == "" {
		return fmt.Sprintf("%x", sum[:4])
	}
	return fmt.Sprintf("%s %x", r.says, sum[:4])
}
