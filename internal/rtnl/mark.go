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
	return []nl.NetlinkRequestData{inGroup(m.Group), nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(m.Alias))}
}
