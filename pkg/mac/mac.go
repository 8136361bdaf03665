// Package mac is about the MAC addresses of an attachment: the guest's own, and
// the one that its devices on the host carry. It knows no devices; package port
// says which device gets which.
package mac

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"strings"
)

// ErrInvalid marks text that is no usable guest MAC address.
var ErrInvalid = errors.New("not a unicast MAC address")

// Addr is an Ethernet address.
type Addr [6]byte

// Parse reads six colon-separated pairs of hex digits. Group addresses and the
// all-zero address are refused: a guest that sends from one can never be
// answered (libvirt refuses only the first kind).
func Parse(s string) (Addr, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(Addr{}) || hw.String() != strings.ToLower(s) {
		return Addr{}, fmt.Errorf("%w: %q: want six hex pairs such as 52:54:00:12:34:56", ErrInvalid, s)
	}
	a := Addr(hw)
	switch {
	case a.IsZero():
		return Addr{}, fmt.Errorf("%w: %q is all zero", ErrInvalid, s)
	case a[0]&1 == 1:
		return Addr{}, fmt.Errorf("%w: %q is a multicast address", ErrInvalid, s)
	}
	return a, nil
}

// From reads an address as the kernel sends it; anything but six bytes becomes the
// zero address.
func From(b []byte) Addr {
	if len(b) != len(Addr{}) {
		return Addr{}
	}
	return Addr(b)
}

// Stable computes a locally administered MAC address from an attachment's
// identity, so that a retried ADD gives the guest the address it had.
func Stable(containerID, ifName string) Addr {
	sum := sha256.Sum256([]byte("tapbridge guest MAC\x00" + containerID + "\x00" + ifName))
	a := Addr(sum[:6])
	a[0] = a[0]&^1 | 2
	return a.avoidDerived()
}

// avoidDerived keeps computed addresses out of the two first bytes that
// Derived hands out, so that they cannot meet another guest's port.
func (a Addr) avoidDerived() Addr {
	if a[0] == 0xfe || a[0] == 0xfa {
		a[0] = 0x02
	}
	return a
}

// Derived is the address of the devices that stand for the guest on the host:
// the first byte becomes 0xFE, or 0xFA for a guest whose first byte is 0xFE
// already. A bridge without a pinned address takes the lowest of its ports, so
// a high first byte keeps guests from changing it (libvirt's
// virNetDevTapCreateInBridgePort).
func (a Addr) Derived() Addr {
	d := a
	d[0] = 0xfe
	if a[0] == 0xfe {
		d[0] = 0xfa
	}
	return d
}

// IsZero reports whether a is the zero address: none.
func (a Addr) IsZero() bool { return a == Addr{} }

// HardwareAddr is a as the netlink library takes it.
func (a Addr) HardwareAddr() net.HardwareAddr { return a[:] }

func (a Addr) String() string { return net.HardwareAddr(a[:]).String() }

// MarshalText writes the usual notation.
func (a Addr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is Parse.
func (a *Addr) UnmarshalText(text []byte) (err error) {
	*a, err = Parse(string(text))
	return err
}
