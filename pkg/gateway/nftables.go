package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

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
	msgs, err := dumpRules()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	for _, m := range msgs {
		r, e := parseRule(m)
		if e != nil {
			return nil, fmt.Errorf("parse a masquerade rule: %w", e)
		}
		all = append(all, r)
	}
	if err != nil {
		return nil, fmt.Errorf("list masquerade rules: %w", err)
	}
	return all, nil
}

func parseRule(msg []byte) (rule, error) {
	if len(msg) < nl.SizeofNfgenmsg {
		return rule{}, fmt.Errorf("%d bytes: %w", len(msg), unix.EPROTO)
	}
	attrs, err := rtnl.ParseAttributes(msg[nl.SizeofNfgenmsg:])
	return rule{
		handle:      attrs[unix.NFTA_RULE_HANDLE],
		comment:     comment(attrs[unix.NFTA_RULE_USERDATA]),
		expressions: attrs[unix.NFTA_RULE_EXPRESSIONS],
	}, err
}

func dumpRules() (msgs [][]byte, err error) {
	const attempts = 10
	for range attempts {
		r := message(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, text(unix.NFTA_RULE_TABLE, table), text(unix.NFTA_RULE_CHAIN, checks))
		if msgs, err = r.Execute(unix.NETLINK_NETFILTER, 0); !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			return msgs, err
		}
	}
	return nil, err
}

// comment is what nft puts into the user data: type 0, a length, the text and its
// final NUL.
func comment(data []byte) string {
	if len(data) < 2 || data[0] != 0 || len(data) < 2+int(data[1]) {
		return ""
	}
	return unix.ByteSliceToString(data[2 : 2+int(data[1])])
}

func (s ruleSet) deletions() (changes []*nl.NetlinkRequest) {
	for _, r := range s {
		changes = append(changes, message(unix.NFT_MSG_DELRULE, 0,
			text(unix.NFTA_RULE_TABLE, table), text(unix.NFTA_RULE_CHAIN, checks), nl.NewRtAttr(unix.NFTA_RULE_HANDLE, r.handle)))
	}
	return changes
}

// remove takes the rules away, and in the same transaction what the first rule
// brought, unless that is in use: with NLM_F_NONREC the kernel refuses to remove a
// chain or a table that holds anything, and then removes nothing. So nobody's rule
// can be lost that comes in between, and no table is left by who is killed.
func (s ruleSet) remove() error {
	err := commit(append(s.deletions(), emptyTable()...)...)
	if refused := (refusal{}); errors.As(err, &refused) {
		return commit(s.deletions()...)
	}
	return err
}

// emptyTable removes the table if it is as the library makes it, without rules of
// anybody.
func emptyTable() []*nl.NetlinkRequest {
	chain := func(name string) *nl.NetlinkRequest {
		return message(unix.NFT_MSG_DELCHAIN, unix.NLM_F_NONREC, text(unix.NFTA_CHAIN_TABLE, table), text(unix.NFTA_CHAIN_NAME, name))
	}
	return []*nl.NetlinkRequest{
		message(unix.NFT_MSG_DELRULE, 0, text(unix.NFTA_RULE_TABLE, table), text(unix.NFTA_RULE_CHAIN, postrouting)),
		chain(postrouting), chain(checks),
		message(unix.NFT_MSG_DELTABLE, unix.NLM_F_NONREC, text(unix.NFTA_TABLE_NAME, table)),
	}
}

func message(kind, flags int, attrs ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags)
	r.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_INET})
	for _, a := range attrs {
		r.AddData(a)
	}
	return r
}

func text(attr int, value string) *nl.RtAttr { return nl.NewRtAttr(attr, nl.ZeroTerminated(value)) }

// frame begins or ends a batch; its resource is the subsystem, in network order.
func frame(kind int) *nl.NetlinkRequest {
	var subsystem [2]byte
	binary.BigEndian.PutUint16(subsystem[:], unix.NFNL_SUBSYS_NFTABLES)
	r := nl.NewNetlinkRequest(kind, 0)
	r.AddData(&nl.Nfgenmsg{ResId: binary.NativeEndian.Uint16(subsystem[:])})
	return r
}

// commit sends the changes as one transaction: the kernel makes all of them or
// none. The error is that of the first that it refuses.
func commit(changes ...*nl.NetlinkRequest) error {
	last := changes[len(changes)-1]
	last.Flags |= unix.NLM_F_ACK
	batch := frame(unix.NFNL_MSG_BATCH_BEGIN).Serialize()
	for _, c := range changes {
		batch = append(batch, c.Serialize()...)
	}
	batch = append(batch, frame(unix.NFNL_MSG_BATCH_END).Serialize()...)
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open a netfilter socket: %w", err)
	}
	defer s.Close()
	if err := unix.Sendto(s.GetFd(), batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("change masquerade rules: %w", err)
	}
	if err := answer(s, last.Seq); err != nil {
		return fmt.Errorf("change masquerade rules: %w", err)
	}
	return nil
}

// refusal is what the kernel says to a transaction, as opposed to what keeps it
// from being heard.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func answer(s *nl.NetlinkSocket, last uint32) error {
	for {
		msgs, _, err := s.Receive()
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue
			}
			if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
				return refusal{syscall.Errno(-code)}
			}
			if m.Header.Seq == last {
				return nil
			}
		}
	}
}
