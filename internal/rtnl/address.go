package rtnl

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Addresses lists the IP addresses of one device, each with its prefix length.
func (c *Conn) Addresses(index int) (list []netip.Prefix, err error) {
	msgs, err := c.Dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	for _, msg := range msgs { // of all devices: the kernel filters for callers with strict checking only
		header := nl.DeserializeIfAddrmsg(msg)
		if err != nil || int(header.Index) != index {
			continue
		}
		attrs, parseErr := ParseAttributes(msg[header.Len():])
		address, ok := netip.AddrFromSlice(attrs[unix.IFA_ADDRESS])
		if local, isPeer := netip.AddrFromSlice(attrs[unix.IFA_LOCAL]); isPeer {
			address, ok = local, true
		}
		if err = parseErr; err == nil && ok {
			list = append(list, netip.PrefixFrom(address, int(header.Prefixlen)))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list the addresses of link %d: %w", index, err)
	}
	return list, nil
}

// AddressesOf lists the same with all that the netlink library knows of them, so
// that they can be put back.
func (c *Conn) AddressesOf(index int) (list []netlink.Addr, err error) {
	handle, err := c.Handle()
	if err != nil {
		return nil, err
	}
	list, err = handle.AddrList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of link %d: %w", index, err)
	}
	return list, nil
}
