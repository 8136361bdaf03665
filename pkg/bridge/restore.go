package bridge

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Unblock makes the port at index forward again that somebody has switched off.
// EBUSY where the kernel's STP decides about that (net/bridge/br_stp_if.c,
// br_set_port_state).
func Unblock(c *rtnl.Conn, index int) error {
	const forwarding = 3 // BR_STATE_FORWARDING
	return setPort(c, index, "let the port forward", nl.IFLA_BRPORT_STATE, nl.Uint8Attr(forwarding))
}

// Flush forgets what the port at index has learned; entries that were written
// stay (net/bridge/br_netlink.c, br_setport).
func Flush(c *rtnl.Conn, index int) error {
	return setPort(c, index, "flush what the port has learned", nl.IFLA_BRPORT_FLUSH, nil)
}

func setPort(c *rtnl.Conn, index int, what string, number int, value []byte) error {
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(number, value)
	if err := c.Change(unix.RTM_SETLINK, 0, portAt(index), info); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
