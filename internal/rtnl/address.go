package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Addresses lists the IP addresses of every device, by its index, each with its
// prefix length.
func (c *Conn) Addresses() (map[int][]netip.Prefix, error) {
	msgs, err := c.Dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	all := map[int][]netip.Prefix{}
	for _, msg := range msgs {
		index, address, parseErr := parseAddress(msg)
		if err == nil {
			err = parseErr
		}
		if address.IsValid() {
			all[index] = append(all[index], address)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list the addresses: %w", err)
	}
	return all, nil
}

func parseAddress(msg []byte) (index int, address netip.Prefix, err error) {
	if len(msg) < unix.SizeofIfAddrmsg {
		return 0, address, fmt.Errorf("parse address: %d bytes: %w", len(msg), unix.EPROTO)
	}
	header := nl.DeserializeIfAddrmsg(msg)
	attrs, err := ParseAttributes(msg[unix.SizeofIfAddrmsg:])
	for _, number := range []uint16{unix.IFA_ADDRESS, unix.IFA_LOCAL} { // where both are sent, the first is the peer's
		if ip, ok := netip.AddrFromSlice(attrs.Get(number)); ok {
			address = netip.PrefixFrom(ip, int(header.Prefixlen))
		}
	}
	return int(header.Index), address, err
}

// IPNet is the netlink library's form of an address with its prefix length, or of a
// network.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// AddressesOf lists those of one device with all that the netlink library knows of
// them, so that they can be put back.
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

// DeleteAddress takes an address from one device. One that is not there is no
// error: with another one the kernel deletes those that depend on it.
func (c *Conn) DeleteAddress(index int, a netlink.Addr) error {
	handle, err := c.Handle()
	if err != nil {
		return err
	}
	err = handle.AddrDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, &a)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}
