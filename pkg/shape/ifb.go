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

// AddIFB makes one and returns its index. It has its group from the first moment,
// its alias from the second: the kernel takes none in the message that creates a
// device. mtu is in bytes.
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
	if err := c.Change(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...); err != nil {
		return 0, fmt.Errorf("create ifb %q: %w", name, err)
	}
	l, err := c.LinkNamed(name)
	if err != nil {
		return 0, err
	}
	if err := c.SetLink(l.Index, m.Attributes()...); err != nil {
		return 0, fmt.Errorf("mark ifb %q: %w", name, err)
	}
	return l.Index, nil
}
