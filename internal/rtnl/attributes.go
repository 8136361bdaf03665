package rtnl

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes are those of a message, or of one of them, as they stand there. Of a
// link's hundred a dozen are asked for: a map would cost more than the search.
type Attributes []byte

// ParseAttributes takes what follows a message's header. Error: unix.EPROTO.
func ParseAttributes(b []byte) (Attributes, error) {
	return b, EachAttribute(b, func(uint16, []byte) {})
}

// Get is the value of attribute n, of several with one number the last; nil when the
// kernel did not send it.
func (a Attributes) Get(n uint16) (value []byte) {
	_ = EachAttribute(a, func(number uint16, v []byte) { // has been read before
		if number == n {
			value = v
		}
	})
	return value
}

// EachAttribute is for lists. The library's function panics where
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
	if b := a.Get(n); len(b) == 1 {
		return b[0], true
	}
	return 0, false
}

// Uint16 is attribute n, and whether the kernel sent it.
func (a Attributes) Uint16(n uint16) (uint16, bool) {
	if b := a.Get(n); len(b) == 2 {
		return nl.NativeEndian().Uint16(b), true
	}
	return 0, false
}

// Uint32 is attribute n, and whether the kernel sent it.
func (a Attributes) Uint32(n uint16) (uint32, bool) {
	if b := a.Get(n); len(b) == 4 {
		return nl.NativeEndian().Uint32(b), true
	}
	return 0, false
}

// Uint64 is attribute n, and whether the kernel sent it.
func (a Attributes) Uint64(n uint16) (uint64, bool) {
	if b := a.Get(n); len(b) == 8 {
		return nl.NativeEndian().Uint64(b), true
	}
	return 0, false
}
