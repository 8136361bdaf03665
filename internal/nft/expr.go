package nft

import (
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Expr is one step of a rule. One that cannot be taken, because the frame is too
// short for it, ends the rule without a verdict.
type Expr struct {
	name string
	data []*nl.RtAttr
}

// Register is where a step finds or leaves a value: 16 bytes, and more in the
// registers that follow.
type Register uint32

// The registers.
const (
	R1 Register = unix.NFT_REG_1
	R2 Register = unix.NFT_REG_2
)

// Meta loads what the kernel knows of the frame (unix.NFT_META_IIFNAME …).
func Meta(key uint32, into Register) Expr {
	return Expr{"meta", []*nl.RtAttr{Number(unix.NFTA_META_DREG, uint32(into)), Number(unix.NFTA_META_KEY, key)}}
}

// Payload loads length bytes of the frame, from offset in a header
// (unix.NFT_PAYLOAD_LL_HEADER …) on. The link-layer header is that of the wire,
// with a VLAN tag that the kernel has taken off (net/netfilter/nft_payload.c,
// nft_payload_copy_vlan).
func Payload(header, offset, length uint32, into Register) Expr {
	return Expr{"payload", []*nl.RtAttr{
		Number(unix.NFTA_PAYLOAD_DREG, uint32(into)), Number(unix.NFTA_PAYLOAD_BASE, header),
		Number(unix.NFTA_PAYLOAD_OFFSET, offset), Number(unix.NFTA_PAYLOAD_LEN, length),
	}}
}

// Extension loads length bytes from offset in an extension header of IPv6, if there
// is one.
func Extension(header uint8, offset, length uint32, into Register) Expr {
	return Expr{"exthdr", []*nl.RtAttr{
		Number(unix.NFTA_EXTHDR_DREG, uint32(into)), nl.NewRtAttr(unix.NFTA_EXTHDR_TYPE, []byte{header}),
		Number(unix.NFTA_EXTHDR_OFFSET, offset), Number(unix.NFTA_EXTHDR_LEN, length),
	}}
}

// Mask leaves only some bits of the value.
func Mask(in Register, mask []byte) Expr {
	nothing := make([]byte, len(mask))
	return Expr{"bitwise", []*nl.RtAttr{
		Number(unix.NFTA_BITWISE_SREG, uint32(in)), Number(unix.NFTA_BITWISE_DREG, uint32(in)), Number(unix.NFTA_BITWISE_LEN, uint32(len(mask))),
		Nest(unix.NFTA_BITWISE_MASK, nl.NewRtAttr(unix.NFTA_DATA_VALUE, mask)),
		Nest(unix.NFTA_BITWISE_XOR, nl.NewRtAttr(unix.NFTA_DATA_VALUE, nothing)),
	}}
}

// Compare goes on if the value compares so with data: unix.NFT_CMP_EQ …
func Compare(from Register, op uint32, data []byte) Expr {
	return Expr{"cmp", []*nl.RtAttr{
		Number(unix.NFTA_CMP_SREG, uint32(from)), Number(unix.NFTA_CMP_OP, op),
		Nest(unix.NFTA_CMP_DATA, nl.NewRtAttr(unix.NFTA_DATA_VALUE, data)),
	}}
}

// In goes on if the value is in the set.
func In(set string, from Register) Expr { return lookup(set, from, 0) }

// NotIn goes on if the value is not in the set.
func NotIn(set string, from Register) Expr { return lookup(set, from, unix.NFT_LOOKUP_F_INV) }

func lookup(set string, from Register, flags uint32) Expr {
	return Expr{"lookup", []*nl.RtAttr{
		Text(unix.NFTA_LOOKUP_SET, set), Number(unix.NFTA_LOOKUP_SREG, uint32(from)), Number(unix.NFTA_LOOKUP_FLAGS, flags),
	}}
}

// Verdicts (linux/netfilter.h, linux/netfilter/nf_tables.h).
const (
	drop   = 0
	accept = 1
	goTo   = 1<<32 + unix.NFT_GOTO // negative in the kernel
)

// Accept lets the frame pass.
func Accept() Expr { return verdict(accept) }

// Drop ends the frame.
func Drop() Expr { return verdict(drop) }

// Goto goes on in another chain, for good.
func Goto(chain string) Expr {
	return verdict(goTo, Text(unix.NFTA_VERDICT_CHAIN, chain))
}

func verdict(code uint32, more ...*nl.RtAttr) Expr {
	parts := append([]*nl.RtAttr{Number(unix.NFTA_VERDICT_CODE, code)}, more...)
	return Expr{"immediate", []*nl.RtAttr{
		Number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT),
		Nest(unix.NFTA_IMMEDIATE_DATA, Nest(unix.NFTA_DATA_VERDICT, parts...)),
	}}
}

// Expressions is the attribute of a rule that holds its steps.
func Expressions(steps ...Expr) *nl.RtAttr {
	list := make([]*nl.RtAttr, len(steps))
	for i, s := range steps {
		list[i] = Nest(unix.NFTA_LIST_ELEM, Text(unix.NFTA_EXPR_NAME, s.name), Nest(unix.NFTA_EXPR_DATA, s.data...))
	}
	return Nest(unix.NFTA_RULE_EXPRESSIONS, list...)
}
