package gateway

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nft"
	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// The table is ours alone, of the inet family. It has one chain, of what the node is
// about to send, with a rule for each address of a guest.
const (
	table = "tapbridge"
	chain = "from_guests" // a keyword of nft would keep people from adding to it
)

// Owner is whose rules they are.
type Owner struct {
	Port    string // names the attachment, whatever its network
	Network string
}

// longestNetwork leaves room in a comment for the other words.
const longestNetwork = 60

// network is how a comment names the network.
func (o Owner) network() string {
	if len(o.Network) <= longestNetwork {
		return o.Network
	}
	sum := sha256.Sum256([]byte(o.Network))
	return fmt.Sprintf("#%x", sum[:8]) // no network's name: they begin with a letter or digit
}

func (o Owner) has(r rule) bool { return r.Port == o.Port }

// owned is what a rule is for.
type owned struct {
	Owner
	guest netip.Prefix // its address, with the subnet that it reaches without a router
}

// comment tells the rule from others, and from one of another version.
func (o owned) comment() string {
	sum := sha256.Sum256(fmt.Append(nil, o.steps()))
	return fmt.Sprintf("%s %s %s %x", o.Port, o.guest, o.network(), sum[:4])
}

// steps are those of: ip saddr GUEST ip daddr != SUBNET ip daddr != 224.0.0.0/4
// masquerade, or of the same for IPv6.
func (o owned) steps() []nft.Expr {
	family, source, target, multicast, prefix := byte(unix.NFPROTO_IPV4), uint32(12), uint32(16), "\xe0\x00\x00\x00", "\xf0\x00\x00\x00"
	if o.guest.Addr().Is6() {
		family, source, target, multicast, prefix = unix.NFPROTO_IPV6, 8, 24, "\xff", "\xff"
	}
	size := uint32(o.guest.Addr().BitLen() / 8)
	load := func(offset, length uint32) nft.Expr {
		return nft.Payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, length, nft.R1)
	}
	is := func(data string) nft.Expr { return nft.Compare(nft.R1, unix.NFT_CMP_EQ, data) }
	isNot := func(data string) nft.Expr { return nft.Compare(nft.R1, unix.NFT_CMP_NEQ, data) }
	return []nft.Expr{
		nft.Meta(unix.NFT_META_NFPROTO, nft.R1), is(string(family)),
		load(source, size), is(string(o.guest.Addr().AsSlice())),
		load(target, size), nft.Mask(nft.R1, string(net.CIDRMask(o.guest.Bits(), int(8*size)))), isNot(string(o.guest.Masked().Addr().AsSlice())),
		load(target, uint32(len(multicast))), nft.Mask(nft.R1, prefix), isNot(multicast),
		nft.Masquerade(),
	}
}

// define makes the rules, with the table and the chain where they are missing.
func define(wanted ...owned) []*nl.NetlinkRequest {
	const postRouting, sourceNAT, accept = 4, 100, 1 // NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC, NF_ACCEPT
	changes := []*nl.NetlinkRequest{
		message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, nft.Text(unix.NFTA_TABLE_NAME, table), nft.Number(unix.NFTA_TABLE_FLAGS, 0)),
		message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, nft.Text(unix.NFTA_CHAIN_TABLE, table), nft.Text(unix.NFTA_CHAIN_NAME, chain),
			nft.Text(unix.NFTA_CHAIN_TYPE, "nat"), nft.Number(unix.NFTA_CHAIN_POLICY, accept),
			nft.Nest(unix.NFTA_CHAIN_HOOK, nft.Number(unix.NFTA_HOOK_HOOKNUM, postRouting), nft.Number(unix.NFTA_HOOK_PRIORITY, sourceNAT))),
	}
	for _, o := range wanted {
		changes = append(changes, message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, inChain(
			nft.Expressions(o.steps()...), nl.NewRtAttr(unix.NFTA_RULE_USERDATA, nft.Comment(o.comment())))...))
	}
	return changes
}

// rule is one that is there.
type rule struct {
	owned
	handle  []byte
	current bool // it has the steps of this version
}

type ruleSet []rule

// rulesThat lists those of the node; none when there is no such table, or no nftables
// in the kernel.
func rulesThat(which func(rule) bool) (all ruleSet, err error) {
	found, err := nft.Get(netns.None(), message(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, inChain()...))
	if nft.Missing(err) {
		return nil, nil
	}
	for _, attrs := range found {
		if r, ours := ruleOf(attrs); ours && which(r) {
			all = append(all, r)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list masquerade rules: %w", err)
	}
	return all, nil
}

// ruleOf reads a rule; somebody may have put his own into the chain.
func ruleOf(attrs rtnl.Attributes) (r rule, ours bool) {
	comment := nft.CommentIn(attrs.Get(unix.NFTA_RULE_USERDATA))
	words := strings.Split(comment, " ")
	if len(words) != 4 {
		return r, false
	}
	guest, err := netip.ParsePrefix(words[1])
	if err != nil {
		return r, false
	}
	o := owned{Owner{words[0], words[2]}, guest}
	return rule{o, attrs.Get(unix.NFTA_RULE_HANDLE), comment == o.comment()}, true
}

func (s ruleSet) deletions() (changes []*nl.NetlinkRequest) {
	for _, r := range s {
		changes = append(changes, message(unix.NFT_MSG_DELRULE, 0, inChain(nl.NewRtAttr(unix.NFTA_RULE_HANDLE, r.handle))...))
	}
	return changes
}

// remove takes the rules away, and in the same transaction what the first rule
// brought, unless that is in use: with NLM_F_NONREC the kernel refuses to remove a
// chain or a table that holds anything, and then removes nothing. So nobody's rule
// can be lost that comes in between, and no table is left by who is killed.
func (s ruleSet) remove() error {
	if err := nft.CommitAnd(netns.None(), s.deletions(), emptyTable()); err != nil {
		return fmt.Errorf("change masquerade rules: %w", err)
	}
	return nil
}

// emptyTable removes the table if it is as define makes it, without rules of anybody.
func emptyTable() []*nl.NetlinkRequest {
	return []*nl.NetlinkRequest{
		message(unix.NFT_MSG_DELCHAIN, unix.NLM_F_NONREC, nft.Text(unix.NFTA_CHAIN_TABLE, table), nft.Text(unix.NFTA_CHAIN_NAME, chain)),
		message(unix.NFT_MSG_DELTABLE, unix.NLM_F_NONREC, nft.Text(unix.NFTA_TABLE_NAME, table)),
	}
}

func inChain(attrs ...nl.NetlinkRequestData) []nl.NetlinkRequestData {
	return slices.Concat([]nl.NetlinkRequestData{nft.Text(unix.NFTA_RULE_TABLE, table), nft.Text(unix.NFTA_RULE_CHAIN, chain)}, attrs)
}

func message(kind, flags int, attrs ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	return nft.Request(unix.NFPROTO_INET, kind, flags, attrs...)
}
