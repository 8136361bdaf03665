package gateway

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nft"
	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// The table of the reference plugins' library (containernetworking/plugins,
// pkg/ip, ipmasq_nftables_linux.go), which makes the rules. Reading and removing
// them is done here: the library's removal asks for the network's name, which DEL
// may not know, runs nft for what is mostly not there, and leaves its table.
const (
	table       = "cni_plugins_masquerade"
	checks      = "masq_checks"
	postrouting = "postrouting"
)

// rule is one rule of the chain with the checks.
type rule struct {
	handle      []byte
	comment     string // begins with the hashes of network and attachment: "0123456789abcdef-0123456789abcdef, …"
	expressions []byte
}

func (r rule) network() string {
	network, _ := r.hashes()
	return network
}

func (r rule) instance() string {
	_, instance := r.hashes()
	return instance
}

func (r rule) hashes() (network, instance string) {
	head, _, _ := strings.Cut(r.comment, ",")
	network, instance, _ = strings.Cut(head, "-")
	return network, instance
}

type ruleSet []rule

func rulesThat(which func(rule) bool) (ruleSet, error) {
	all, err := rules()
	return slices.DeleteFunc(all, func(r rule) bool { return !which(r) }), err
}

// rules lists those of the node; none when there is no such table, or no nftables
// in the kernel.
func rules() (all ruleSet, err error) {
	found, err := nft.Get(netns.None(), message(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, nft.Text(unix.NFTA_RULE_TABLE, table), nft.Text(unix.NFTA_RULE_CHAIN, checks)))
	if nft.Missing(err) {
		return nil, nil
	}
	for _, attrs := range found {
		all = append(all, ruleOf(attrs))
	}
	if err != nil {
		return nil, fmt.Errorf("list masquerade rules: %w", err)
	}
	return all, nil
}

func ruleOf(attrs rtnl.Attributes) rule {
	return rule{
		handle:      attrs.Get(unix.NFTA_RULE_HANDLE),
		comment:     nft.CommentIn(attrs.Get(unix.NFTA_RULE_USERDATA)),
		expressions: attrs.Get(unix.NFTA_RULE_EXPRESSIONS),
	}
}

func (s ruleSet) deletions() (changes []*nl.NetlinkRequest) {
	for _, r := range s {
		changes = append(changes, message(unix.NFT_MSG_DELRULE, 0,
			nft.Text(unix.NFTA_RULE_TABLE, table), nft.Text(unix.NFTA_RULE_CHAIN, checks), nl.NewRtAttr(unix.NFTA_RULE_HANDLE, r.handle)))
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

// emptyTable removes the table if it is as the library makes it, without rules of
// anybody.
func emptyTable() []*nl.NetlinkRequest {
	chain := func(name string) *nl.NetlinkRequest {
		return message(unix.NFT_MSG_DELCHAIN, unix.NLM_F_NONREC, nft.Text(unix.NFTA_CHAIN_TABLE, table), nft.Text(unix.NFTA_CHAIN_NAME, name))
	}
	return []*nl.NetlinkRequest{
		message(unix.NFT_MSG_DELRULE, 0, nft.Text(unix.NFTA_RULE_TABLE, table), nft.Text(unix.NFTA_RULE_CHAIN, postrouting)),
		chain(postrouting), chain(checks),
		message(unix.NFT_MSG_DELTABLE, unix.NLM_F_NONREC, nft.Text(unix.NFTA_TABLE_NAME, table)),
	}
}

func message(kind, flags int, attrs ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	return nft.Request(unix.NFPROTO_INET, kind, flags, attrs...)
}
