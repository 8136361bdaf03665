package rtnl

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Behind is another network namespace, reached without entering it. Where it is
// gone, IsNotExist tells so.
type Behind struct {
	conn *Conn
	nsid int
}

// Behind is the namespace for which the connection's own has that id: a veth's
// link-netnsid.
func (c *Conn) Behind(nsid int) Behind { return Behind{c, nsid} }

// Links lists the devices there.
func (b Behind) Links() ([]Link, error) {
	links, err := b.conn.links(b.target())
	return links, gone(err)
}

// LinkNamed is Conn.LinkNamed there.
func (b Behind) LinkNamed(name string) (Link, error) {
	l, err := b.conn.link(nl.NewIfInfomsg(unix.AF_UNSPEC), named(name), b.target())
	if err = gone(err); err != nil {
		return Link{}, fmt.Errorf("read link %q: %w", name, err)
	}
	return l, nil
}

// Delete removes one device there.
func (b Behind) Delete(index int) error {
	return gone(b.conn.Change(unix.RTM_DELLINK, 0, at(index), b.target()))
}

// DeleteGroup is Conn.DeleteGroup there.
func (b Behind) DeleteGroup(group uint32) error {
	return gone(b.conn.Change(unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), inGroup(group), b.target()))
}

// Received is how many frames have come in at a device there so far, which for a tap
// are those that the VMM has sent, and whether it has carrier.
func (b Behind) Received(name string) (frames uint64, plugged bool, err error) {
	msg, err := b.conn.Get(unix.RTM_GETLINK, unix.RTM_NEWLINK,
		nl.NewIfInfomsg(unix.AF_UNSPEC), named(name), b.target())
	if err = gone(err); err != nil {
		return 0, false, fmt.Errorf("read the counters of link %q: %w", name, err)
	}
	l, err := parseLink(msg)
	if err != nil {
		return 0, false, err
	}
	attrs, err := ParseAttributes(msg[unix.SizeofIfInfomsg:])
	if stats := attrs.Get(unix.IFLA_STATS64); len(stats) >= 8 { // struct rtnl_link_stats64 begins with rx_packets
		frames = nl.NativeEndian().Uint64(stats)
	}
	return frames, l.Plugged(), err
}

func (b Behind) target() *nl.RtAttr {
	return nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(b.nsid)))
}

// gone puts the kernel's word for an id that stands for no namespace any more
// (net/core/rtnetlink.c, rtnl_get_net_ns_capable) in line with what it says about
// all else that is missing.
func gone(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("network namespace behind the link: %w (%w)", unix.ENOENT, err)
	}
	return err
}
