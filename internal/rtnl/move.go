package rtnl

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Move takes a device to the namespace of to, where it gets that name. Whoever has
// a tap open keeps it, and group, alias and MAC address stay; but the device is down
// then, and its queues and filters are gone (net/core/dev.c,
// __dev_change_net_namespace). It takes as long as deleting one: the kernel waits
// for its readers.
func (c *Conn) Move(index int, to *Conn, name string) error {
	fd := to.FD()
	if fd < 0 {
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return fmt.Errorf("open the process's network namespace: %w", err)
		}
		defer own.Close()
		fd = int(own.Fd())
	}
	return c.SetLink(index,
		nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(fd))),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
}

// Heard is how many frames have come in at a device there so far, which for a tap
// are those that the VMM has sent, and whether it has carrier.
func (b Behind) Heard(name string) (frames uint64, plugged bool, err error) {
	msg, err := b.conn.Get(unix.RTM_GETLINK, unix.RTM_NEWLINK,
		nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), b.target())
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
