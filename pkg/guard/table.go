package guard

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nft"
	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// table is ours alone, of the bridge family.
const table = "tapbridge"

// The sets. The name of a port is the key of the first, and its beginning in the
// others.
const (
	ports = "ports"
	macs  = "macs"
	ipv4  = "ipv4"
	ipv6  = "ipv6"
)

// set is what one consists of; numbers of types are those of nft, which shows the
// elements by them.
type set struct {
	name   string
	kind   uint32
	length uint32 // of a key in bytes
}

// Sizes in bytes, and nft's numbers of types (nftables, include/datatype.h).
const (
	nameSize   = unix.IFNAMSIZ
	typeIfName = 41
	typeIPv4   = 7
	typeIPv6   = 8
	typeEther  = 9
)

var sets = []set{
	{ports, typeIfName, nameSize},
	{macs, typeIfName<<6 | typeEther, nameSize + 8}, // each part is a multiple of 4
	{ipv4, typeIfName<<6 | typeIPv4, nameSize + 4},
	{ipv6, typeIfName<<6 | typeIPv6, nameSize + 16},
}

// hostOrder tells nft how to show names: type 0 (NFTNL_UDATA_SET_KEYBYTEORDER), a
// length, and BYTEORDER_HOST_ENDIAN.
var hostOrder = append([]byte{0, 4}, nl.Uint32Attr(1)...)

// first comes before whatever could change a frame: NF_BR_PRI_NAT_DST_BRIDGED is
// -300.
const first = -400

func request(kind, flags int, attrs ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	return nft.Request(unix.NFPROTO_BRIDGE, kind, flags, attrs...)
}

// define makes the table with all its rules, or makes it what it should be: rules
// of ours that somebody has changed, or an older version has made, are replaced.
func define() (changes []*nl.NetlinkRequest) {
	changes = append(changes, request(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE,
		nft.Text(unix.NFTA_TABLE_NAME, table), nft.Number(unix.NFTA_TABLE_FLAGS, 0)))
	for i, s := range sets {
		changes = append(changes, request(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE,
			nft.Text(unix.NFTA_SET_TABLE, table), nft.Text(unix.NFTA_SET_NAME, s.name), nft.Number(unix.NFTA_SET_FLAGS, 0),
			nft.Number(unix.NFTA_SET_KEY_TYPE, s.kind), nft.Number(unix.NFTA_SET_KEY_LEN, s.length), nft.Number(unix.NFTA_SET_ID, uint32(i+1)),
			nl.NewRtAttr(unix.NFTA_SET_USERDATA, hostOrder)))
	}
	for _, c := range chains {
		changes = append(changes, request(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, chainAttributes(c)...))
	}
	changes = append(changes, request(unix.NFT_MSG_DELRULE, 0, nft.Text(unix.NFTA_RULE_TABLE, table)))
	for _, r := range rules {
		changes = append(changes, request(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND,
			nft.Text(unix.NFTA_RULE_TABLE, table), nft.Text(unix.NFTA_RULE_CHAIN, r.chain),
			nft.Expressions(r.expressions()...), nl.NewRtAttr(unix.NFTA_RULE_USERDATA, nft.Comment(r.comment()))))
	}
	return changes
}

func chainAttributes(name string) []nl.NetlinkRequestData {
	attrs := []nl.NetlinkRequestData{nft.Text(unix.NFTA_CHAIN_TABLE, table), nft.Text(unix.NFTA_CHAIN_NAME, name)}
	if name != all {
		return attrs
	}
	const preRouting, accept = 0, 1 // NF_BR_PRE_ROUTING, NF_ACCEPT
	priority := int32(first)
	return append(attrs, nft.Text(unix.NFTA_CHAIN_TYPE, "filter"), nft.Number(unix.NFTA_CHAIN_POLICY, accept),
		nft.Nest(unix.NFTA_CHAIN_HOOK, nft.Number(unix.NFTA_HOOK_HOOKNUM, preRouting), nft.Number(unix.NFTA_HOOK_PRIORITY, uint32(priority))))
}

// undefine takes away the table with the elements of its sets, unless somebody has
// a chain or set of his own in it: with NLM_F_NONREC the kernel refuses to remove
// what holds anything, and then removes nothing.
func undefine() (changes []*nl.NetlinkRequest) {
	changes = append(changes, request(unix.NFT_MSG_DELRULE, 0, nft.Text(unix.NFTA_RULE_TABLE, table)))
	for _, c := range chains {
		changes = append(changes, request(unix.NFT_MSG_DELCHAIN, unix.NLM_F_NONREC, nft.Text(unix.NFTA_CHAIN_TABLE, table), nft.Text(unix.NFTA_CHAIN_NAME, c)))
	}
	for _, s := range sets {
		changes = append(changes, request(unix.NFT_MSG_DELSET, 0, nft.Text(unix.NFTA_SET_TABLE, table), nft.Text(unix.NFTA_SET_NAME, s.name)))
	}
	return append(changes, request(unix.NFT_MSG_DELTABLE, unix.NLM_F_NONREC, nft.Text(unix.NFTA_TABLE_NAME, table)))
}

// element is one of a set.
type element struct{ set, key string }

// port is whose element it is.
func (e element) port() string { return unix.ByteSliceToString([]byte(e.key[:nameSize])) }

// value is what the port is looked up with.
func (e element) value() string { return e.key[nameSize:] }

// change adds elements to their sets, or takes them out.
func change(kind, flags int, elements []element) (changes []*nl.NetlinkRequest) {
	for _, e := range elements {
		key := nft.Nest(unix.NFTA_SET_ELEM_KEY, nl.NewRtAttr(unix.NFTA_DATA_VALUE, []byte(e.key)))
		changes = append(changes, request(kind, flags, inSet(e.set, nft.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, nft.Nest(unix.NFTA_LIST_ELEM, key)))...))
	}
	return changes
}

func inSet(name string, more ...nl.NetlinkRequestData) []nl.NetlinkRequestData {
	return append([]nl.NetlinkRequestData{nft.Text(unix.NFTA_SET_ELEM_LIST_TABLE, table), nft.Text(unix.NFTA_SET_ELEM_LIST_SET, name)}, more...)
}

func add(elements []element) []*nl.NetlinkRequest {
	return change(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, elements)
}

func remove(elements []element) []*nl.NetlinkRequest {
	return change(unix.NFT_MSG_DELSETELEM, 0, elements)
}

// elementsIn reads the elements that a message of the kernel has.
func elementsIn(set string, message rtnl.Attributes) (found []element, err error) {
	eachErr := rtnl.EachAttribute(message.Get(unix.NFTA_SET_ELEM_LIST_ELEMENTS), func(_ uint16, item []byte) {
		key, e := keyIn(item)
		if err == nil {
			err = e
		}
		found = append(found, element{set, key})
	})
	if err = errors.Join(err, eachErr); err != nil {
		return nil, fmt.Errorf("parse set %q: %w", set, err)
	}
	return found, nil
}

func keyIn(item []byte) (string, error) {
	parts, err := rtnl.ParseAttributes(item)
	if err != nil {
		return "", err
	}
	key, err := rtnl.ParseAttributes(parts.Get(unix.NFTA_SET_ELEM_KEY))
	if value := key.Get(unix.NFTA_DATA_VALUE); err == nil && len(value) < nameSize {
		err = fmt.Errorf("a key of %d bytes: %w", len(value), unix.EPROTO)
	}
	return string(key.Get(unix.NFTA_DATA_VALUE)), err
}
