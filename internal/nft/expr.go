package nft

import (
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Expr is one step of a rule. One that cannot be taken, because the frame is too
// short for it, ends the rule without a verdict.
type Expr struct {
	kind     string
	register Register
	what     uint32 // to load, how to compare, the verdict
	offset   uint32
	length   uint32
	data     string // to compare with
	name     string // of a set or chain
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
func Meta(key uint32, into Register) Expr { return Expr{kind: "meta", register: into, what: key} }

// Payload loads length bytes of the frame, from offset in a header
// (unix.NFT_PAYLOAD_LL_HEADER …) on. The link-layer header is that of the wire,
// with a VLAN tag that the kernel has taken off (net/netfilter/nft_payload.c,
// nft_payload_copy_vlan).
func Payload(header, offset, length uint32, into Register) Expr {
	return Expr{kind: "payload", register: into, what: header, offset: offset, length: length}
}

// Extension loads length bytes from offset in an extension header of IPv6, if there
// is one.
func Extension(header uint8, offset, length uint32, into Register) Expr {
	return Expr{kind: "exthdr", register: into, what: uint32(header), offset: offset, length: length}
}

// Mask leaves only some bits of the value.
func Mask(in Register, mask string) Expr { return Expr{kind: "bitwise", register: in, data: mask} }

// Compare goes on if the value compares so with data: unix.NFT_CMP_EQ …
func Compare(from Register, op uint32, data string) Expr {
	return Expr{kind: "cmp", register: from, what: op, data: data}
}

// In goes on if the value is in the set.
func In(set string, from Register) Expr { return Expr{kind: "lookup", register: from, name: set} }

// NotIn goes on if the value is not in the set.
func NotIn(set string, from Register) Expr {
	return Expr{kind: "lookup", register: from, name: set, what: unix.NFT_LOOKUP_F_INV}
}

// Verdicts (linux/netfilter.h, linux/netfilter/nf_tables.h).
const (
	drop   = 0
	accept = 1
	goTo   = 1<<32 + unix.NFT_GOTO // negative in the kernel
)

// Accept lets the frame pass.
func Accept() Expr { return Expr{kind: "immediate", what: accept} }

// Drop ends the frame.
func Drop() Expr { return Expr{kind: "immediate", what: drop} }

// Goto goes on in another chain, for good.
func Goto(chain string) Expr { return Expr{kind: "immediate", what: goTo, name: chain} }

// Masquerade gives the packet the address of the device that it leaves by.
func Masquerade() Expr { return Expr{kind: "masq"} }

func (e Expr) attributes() []*nl.RtAttr {
	register := uint32(e.register)
	switch e.kind {
	case "masq":
		return nil
	case "meta":
		return []*nl.RtAttr{Number(unix.NFTA_META_DREG, register), Number(unix.NFTA_META_KEY, e.what)}
	case "payload":
		return []*nl.RtAttr{
			Number(unix.NFTA_PAYLOAD_DREG, register), Number(unix.NFTA_PAYLOAD_BASE, e.what),
			Number(unix.NFTA_PAYLOAD_OFFSET, e.offset), Number(unix.NFTA_PAYLOAD_LEN, e.length),
		}
	case "exthdr":
		return []*nl.RtAttr{
			Number(unix.NFTA_EXTHDR_DREG, register), nl.NewRtAttr(unix.NFTA_EXTHDR_TYPE, []byte{byte(e.what)}),
			Number(unix.NFTA_EXTHDR_OFFSET, e.offset), Number(unix.NFTA_EXTHDR_LEN, e.length),
		}
	case "bitwise":
		return []*nl.RtAttr{
			Number(unix.NFTA_BITWISE_SREG, register), Number(unix.NFTA_BITWISE_DREG, register), Number(unix.NFTA_BITWISE_LEN, uint32(len(e.data))),
			value(unix.NFTA_BITWISE_MASK, []byte(e.data)), value(unix.NFTA_BITWISE_XOR, make([]byte, len(e.data))),
		}
	case "cmp":
		return []*nl.RtAttr{Number(unix.NFTA_CMP_SREG, register), Number(unix.NFTA_CMP_OP, e.what), value(unix.NFTA_CMP_DATA, []byte(e.data))}
	case "lookup":
		return []*nl.RtAttr{Text(unix.NFTA_LOOKUP_SET, e.name), Number(unix.NFTA_LOOKUP_SREG, register), Number(unix.NFTA_LOOKUP_FLAGS, e.what)}
	}
	verdict := []*nl.RtAttr{Number(unix.NFTA_VERDICT_CODE, e.what)}
	if e.name != "" {
		verdict = append(verdict, Text(unix.NFTA_VERDICT_CHAIN, e.name))
	}
	return []*nl.RtAttr{
		Number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT),
		Nest(unix.NFTA_IMMEDIATE_DATA, Nest(unix.NFTA_DATA_VERDICT, verdict...)),
	}
}

func value(attr int, data []byte) *nl.RtAttr {
	return Nest(attr, nl.NewRtAttr(unix.NFTA_DATA_VALUE, data))
}

// Expressions is the attribute of a rule that holds its steps.
func Expressions(steps ...Expr) *nl.RtAttr {
	list := make([]*nl.RtAttr, len(steps))
	for i, s := range steps {
		list[i] = Nest(unix.NFTA_LIST_ELEM, Text(unix.NFTA_EXPR_NAME, s.kind), Nest(unix.NFTA_EXPR_DATA, s.attributes()...))
	}
	return Nest(unix.NFTA_RULE_EXPRESSIONS, list...)
}
