// Package fdb reads and writes single entries of a bridge's forwarding database.
// Which entries a port should have is decided in package port.
package fdb

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

// State is how firmly an entry sits.
type State string

// The states that the kernel reports (net/bridge/br_fdb.c, fdb_to_nud).
const (
	Learned State = "learned" // ages, moves
	Static  State = "static"  // NUD_NOARP: stays until deleted
	Local   State = "local"   // NUD_PERMANENT: the bridge's own stack
	None    State = "none"    // in a wish: there is none, or one that was learned
	Roaming State = "roaming" // in a wish: static, until it goes with the guest to another port
)

// Entry is one entry: where frames for a MAC address go.
type Entry struct {
	MAC    mac.Addr
	VLAN   uint16 // 0: of a bridge that is not VLAN-aware
	Port   string // the port's name
	State  State
	Sticky bool // a frame with this source on another port does not move it
}

// Given is the wish as it stands where found is there.
func (e Entry) Given(found Entry) Entry {
	if e.State != Roaming {
		return e
	}
	if found.Port != e.Port {
		return found
	}
	e.State = Static
	return e
}

// Found is an entry as the kernel has it; its port is known by index only.
type Found struct {
	Entry
	Index int // of the port, or of the bridge itself for a local entry of its own
}

// Lookup asks the bridge for the entry of one MAC address in one VLAN, without a
// dump; false when it has none.
func Lookup(c *rtnl.Conn, bridge int, m mac.Addr, vlan uint16) (Found, bool, error) {
	parts := []nl.NetlinkRequestData{
		&netlink.Ndmsg{Family: unix.AF_BRIDGE},
		nl.NewRtAttr(unix.NDA_LLADDR, m.HardwareAddr()),
		nl.NewRtAttr(unix.NDA_MASTER, nl.Uint32Attr(uint32(bridge))),
	}
	if vlan != 0 {
		parts = append(parts, nl.NewRtAttr(unix.NDA_VLAN, nl.Uint16Attr(vlan)))
	}
	msg, err := c.Get(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, parts...)
	if errors.Is(err, unix.ENOENT) {
		return Found{}, false, nil
	}
	if err != nil {
		return Found{}, false, fmt.Errorf("look up FDB entry %s: %w", m, err)
	}
	found, err := parse(msg)
	if err != nil {
		return Found{}, false, fmt.Errorf("parse FDB entry %s: %w", m, err)
	}
	found.MAC, found.VLAN = m, vlan
	return found, true, nil
}

// parse reads what is not in the question. It needs no attribute: the library's
// own function reads all of them, and asks for other links meanwhile.
func parse(msg []byte) (Found, error) {
	const sizeofNdmsg, atIndex, atState, atFlags = 12, 4, 8, 10 // struct ndmsg
	if len(msg) < sizeofNdmsg {
		return Found{}, fmt.Errorf("%d bytes: %w", len(msg), unix.EPROTO)
	}
	return Found{
		Entry: Entry{State: state(binary.NativeEndian.Uint16(msg[atState:])), Sticky: msg[atFlags]&netlink.NTF_STICKY != 0},
		Index: int(int32(binary.NativeEndian.Uint32(msg[atIndex:]))),
	}, nil
}

func state(nud uint16) State {
	switch {
	case nud&unix.NUD_PERMANENT != 0:
		return Local
	case nud&unix.NUD_NOARP != 0:
		return Static
	}
	return Learned
}

// Replace writes a static entry for the port at index; without a VLAN, into every
// VLAN that the port has, and into the table of no VLAN (fdb_add_entry's caller,
// br_fdb_add). It takes over an entry that another port has learned; creating
// exclusively would fail there and leave the guest unreachable, as libvirt does
// (virnetdev.c, virNetDevBridgeFDBAdd).
func Replace(c *rtnl.Conn, index int, e Entry) error {
	if err := c.Change(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, e.message(index)...); err != nil {
		return fmt.Errorf("write FDB entry %s: %w", e.MAC, err)
	}
	return nil
}

// Delete removes the entry from the port at index; without a VLAN, from each that the
// port has. An entry that is not there, or on another port, is no error; nor is one in
// a VLAN that the port has lost, which kernels before 6.13 do not let anybody delete
// (net/bridge/br_fdb.c, br_fdb_delete).
func Delete(c *rtnl.Conn, index int, e Entry) error {
	err := c.Change(unix.RTM_DELNEIGH, 0, e.message(index)...)
	if e.VLAN != 0 && errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil && !rtnl.IsNotExist(err) {
		return fmt.Errorf("delete FDB entry %s: %w", e.MAC, err)
	}
	return nil
}

func (e Entry) message(index int) []nl.NetlinkRequestData {
	msg := &netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(index), State: unix.NUD_NOARP, Flags: netlink.NTF_MASTER}
	if e.Sticky {
		msg.Flags |= netlink.NTF_STICKY
	}
	parts := []nl.NetlinkRequestData{msg, nl.NewRtAttr(unix.NDA_LLADDR, e.MAC.HardwareAddr())}
	if e.VLAN != 0 {
		parts = append(parts, nl.NewRtAttr(unix.NDA_VLAN, nl.Uint16Attr(e.VLAN)))
	}
	return parts
}
