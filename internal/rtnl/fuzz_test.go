package rtnl

import (
	"encoding/binary"
	"syscall"
	"testing"
)

// Whatever answers for the kernel: a link, or an error.
func FuzzParseLink(f *testing.F) {
	f.Fuzz(func(t *testing.T, msg []byte) {
		l, err := parseLink(msg)
		if err == nil {
			_, _, _ = l.MAC(), l.Up(), l.Carrier()
		}
	})
}

// The same for a qdisc.
func FuzzParseQdisc(f *testing.F) {
	f.Fuzz(func(t *testing.T, msg []byte) {
		index := 0
		if len(msg) >= 8 { // of struct tcmsg
			index = int(int32(binary.NativeEndian.Uint32(msg[4:])))
		}
		options, _, err := parseQdisc(msg, index)
		if err == nil {
			options.Uint64(1)
		}
	})
}

// The same for its verdict on a change.
func FuzzVerdict(f *testing.F) {
	f.Fuzz(func(t *testing.T, flags uint16, data []byte) {
		_ = verdict(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Flags: flags}, Data: data})
	})
}

// The same for an address.
func FuzzParseAddress(f *testing.F) {
	f.Fuzz(func(t *testing.T, msg []byte) {
		if _, address, err := parseAddress(msg); err == nil && address.IsValid() && address.Bits() > address.Addr().BitLen() {
			t.Errorf("%v", address)
		}
	})
}
