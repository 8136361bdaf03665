package rtnl

import (
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Mark tells whose a device is. The group can be given in the very message that
// creates a device, so there is no moment at which a device of ours looks like
// a stranger's; the alias says the rest, in words.
type Mark struct {
	Group uint32
	Alias string // at most 255 bytes (IFALIASZ)
}

// Attributes are the mark as a link message carries it.
func (m Mark) Attributes() []nl.NetlinkRequestData {
	return []nl.NetlinkRequestData{inGroup(m.Group), m.alias()}
}

func (m Mark) alias() *nl.RtAttr { return nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(m.Alias)) }

// Create makes the device that parts describe, and marks it. The kernel takes no
// alias in the message that creates a device, so that follows in the same system
// call, for the device of that name.
func (c *Conn) Create(name string, m Mark, parts ...nl.NetlinkRequestData) error {
	alias := []nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC), named(name), m.alias()}
	return c.Sequence(
		Message{unix.RTM_NEWLINK, unix.NLM_F_CREATE | unix.NLM_F_EXCL, parts},
		Message{unix.RTM_SETLINK, 0, alias})
}
