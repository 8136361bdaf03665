package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Set gives the port at index exactly these VLANs: those it should have in one
// message, then those it should not have in another (net/bridge/br_netlink.c,
// br_afspec).
func (l VLANs) Set(c *rtnl.Conn, index int) error {
	want, err := l.Ranges()
	if err != nil {
		return err
	}
	if err := changeVLANs(c, unix.RTM_SETLINK, index, want); err != nil {
		return fmt.Errorf("add VLANs %s: %w", l, err)
	}
	got, err := readVLANs(c, index)
	if err != nil {
		return err
	}
	surplus := without(got, want)
	if len(surplus) == 0 {
		return nil
	}
	if err := changeVLANs(c, unix.RTM_DELLINK, index, surplus); err != nil {
		return fmt.Errorf("remove VLANs %s: %w", NewVLANs(surplus...), err)
	}
	return nil
}

func changeVLANs(c *rtnl.Conn, request, index int, ranges []VLAN) error {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	for _, v := range ranges {
		flags := v.flags()
		if v.First == v.Last {
			addVLAN(spec, v.First, flags)
			continue
		}
		addVLAN(spec, v.First, flags|nl.BRIDGE_VLAN_INFO_RANGE_BEGIN)
		addVLAN(spec, v.Last, flags|nl.BRIDGE_VLAN_INFO_RANGE_END)
	}
	return c.Change(request, 0, portAt(index), spec)
}

func addVLAN(spec *nl.RtAttr, id, flags uint16) {
	spec.AddRtAttr(nl.IFLA_BRIDGE_VLAN_INFO, (&nl.BridgeVlanInfo{Flags: flags, Vid: id}).Serialize())
}

func (v VLAN) flags() (flags uint16) {
	if v.PVID {
		flags |= nl.BRIDGE_VLAN_INFO_PVID
	}
	if v.Untagged {
		flags |= nl.BRIDGE_VLAN_INFO_UNTAGGED
	}
	return flags
}

// without leaves out every VLAN that is in other, whatever its flags.
func without(ranges, other []VLAN) (rest []VLAN) {
	wanted := map[uint16]bool{}
	for _, v := range other {
		for id := v.First; id <= v.Last; id++ {
			wanted[id] = true
		}
	}
	for _, v := range ranges {
		for id := v.First; id <= v.Last; id++ {
			if !wanted[id] {
				rest = append(rest, VLAN{First: id, Last: id})
			}
		}
	}
	return rest
}

// ReadVLANs reads the VLANs of the port at index; "" on a bridge that is not
// VLAN-aware.
func ReadVLANs(c *rtnl.Conn, index int, b Bridge) (VLANs, error) {
	if !b.VLANAware {
		return "", nil
	}
	ranges, err := readVLANs(c, index)
	return NewVLANs(ranges...), err
}

// readVLANs asks for the VLANs of one port (net/bridge/br_vlan.c,
// br_vlan_rtm_dump): the older request answers for every port of the node.
func readVLANs(c *rtnl.Conn, index int) ([]VLAN, error) {
	msgs, err := c.Dump(unix.RTM_GETVLAN, unix.RTM_NEWVLAN, vlanRequest(index))
	if err != nil {
		return nil, fmt.Errorf("read the VLANs of link %d: %w", index, err)
	}
	var all []VLAN
	for _, m := range msgs {
		some, err := parseVLANs(m)
		if err != nil {
			return nil, fmt.Errorf("parse the VLANs of link %d: %w", index, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

func parseVLANs(msg []byte) (all []VLAN, err error) {
	if len(msg) < sizeofVLANMsg {
		return nil, errVLANs
	}
	var wrong error
	err = rtnl.EachAttribute(msg[sizeofVLANMsg:], func(_ uint16, entry []byte) {
		v, err := decodeVLAN(entry)
		if err != nil {
			wrong = err
		}
		all = append(all, v)
	})
	return all, errors.Join(err, wrong)
}

// From linux/if_bridge.h.
const (
	sizeofVLANMsg  = 8 // struct br_vlan_msg
	vlanEntryInfo  = 1 // BRIDGE_VLANDB_ENTRY_INFO
	vlanEntryRange = 2 // BRIDGE_VLANDB_ENTRY_RANGE
)

// vlanRequest is a struct br_vlan_msg for the port with that index.
type vlanRequest int

// Len is the length of the message.
func (vlanRequest) Len() int { return sizeofVLANMsg }

// Serialize writes the message.
func (r vlanRequest) Serialize() []byte {
	b := make([]byte, sizeofVLANMsg)
	b[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(b[4:], uint32(r))
	return b
}

func decodeVLAN(entry []byte) (VLAN, error) {
	attrs, err := rtnl.ParseAttributes(entry)
	if err != nil {
		return VLAN{}, err
	}
	info := attrs.Get(vlanEntryInfo)
	if len(info) != nl.SizeofBridgeVlanInfo {
		return VLAN{}, errVLANs
	}
	i := nl.DeserializeBridgeVlanInfo(info)
	v := VLAN{First: i.Vid, Last: i.Vid, PVID: i.PortVID(), Untagged: i.EngressUntag()}
	if end := attrs.Get(vlanEntryRange); len(end) == 2 {
		v.Last = binary.NativeEndian.Uint16(end)
	}
	return v, nil
}
