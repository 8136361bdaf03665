package rtnl

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes by number, as IFLA_INFO_DATA and IFLA_INFO_SLAVE_DATA carry them.
type Attributes map[uint16][]byte

// ParseAttributes reads what follows a message's header; of several with one number
// the last. Error: unix.EPROTO.
func ParseAttributes(b []byte) (Attributes, error) {
	attrs := Attributes{}
	err := EachAttribute(b, func(number uint16, value []byte) { attrs[number] = value })
	return attrs, err
}

// EachAttribute is ParseAttributes for lists. The library's function panics where
// the last attribute is not padded.
func EachAttribute(b []byte, f func(number uint16, value []byte)) error {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return fmt.Errorf("an attribute of %d bytes in %d: %w", length, len(b), unix.EPROTO)
		}
		f(binary.NativeEndian.Uint16(b[2:])&nl.NLA_TYPE_MASK, b[unix.SizeofRtAttr:length])
		b = b[min((length+3)&^3, len(b)):]
	}
	return nil
}

// Uint8 is attribute n, and whether the kernel sent it.
func (a Attributes) Uint8(n uint16) (uint8, bool) {
	if b := a[n]; len(b) == 1 {
		return b[0], true
	}
	return 0, false
}

// Uint16 is attribute n, and whether the kernel sent it.
func (a Attributes) Uint16(n uint16) (uint16, bool) {
	if b := a[n]; len(b) == 2 {
		return nl.NativeEndian().Uint16(b), true
	}
	return 0, false
}

// Uint32 is attribute n, and whether the kernel sent it.
func (a Attributes) Uint32(n uint16) (uint32, bool) {
	if b := a[n]; len(b) == 4 {
		return nl.NativeEndian().Uint32(b), true
	}
	return 0, false
}

// Uint64 is attribute n, and whether the kernel sent it.
func (a Attributes) Uint64(n uint16) (uint64, bool) {
	if b := a[n]; len(b) == 8 {
		return nl.NativeEndian().Uint64(b), true
	}
	return 0, false
}
