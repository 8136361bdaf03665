package rtnl

import (
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
		own, err := Current()
		if err != nil {
			return err
		}
		defer own.Close()
		fd = int(own)
	}
	return c.SetLink(index,
		nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(fd))),
		named(name))
}
