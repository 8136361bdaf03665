package shape

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

// Kind is what the kernel calls the link kind of intermediate functional blocks:
// frames redirected into one go through its queue and then on where they were.
const Kind = "ifb"

// AddIFB makes one, marked, and returns its index. mtu is in bytes.
func AddIFB(c *rtnl.Conn, name string, address mac.Addr, mtu int, m rtnl.Mark) (int, error) {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(Kind))
	parts := append([]nl.NetlinkRequestData{
		nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, address.HardwareAddr()),
		nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))),
		info,
	}, m.Attributes()...)
	if err := c.Create(name, m, parts...); err != nil {
		return 0, fmt.Errorf("create ifb %q: %w", name, err)
	}
	l, err := c.LinkNamed(name)
	return l.Index, err
}
