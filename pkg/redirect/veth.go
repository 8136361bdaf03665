// Package redirect is the leg between a bridge port on the host and a tap in a
// pod: a veth pair, and what passes every frame on from one device to another,
// such as between its pod end and the tap. Making the tap is the business of
// package tap, joining the bridge that of package bridge.
package redirect

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

// Kind is what the kernel calls the link kind of veth ends.
const Kind = "veth"

// End is one end of a veth pair.
type End struct {
	Name string
	MAC  mac.Addr
	MTU  int // bytes
}

// AddPair makes a veth pair between two namespaces in one message: both ends
// have their MAC, MTU and group from the first moment, and port has its alias
// before anybody can be killed.
func AddPair(host, pod *rtnl.Conn, port, inner End, m rtnl.Mark) error {
	peer := nl.NewRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	for _, a := range inner.attributes(m.Group) {
		peer.AddChild(a)
	}
	if fd := pod.FD(); fd >= 0 {
		peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(fd)))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(Kind))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddChild(peer)

	parts := append([]nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC), info}, port.attributes(m.Group)...)
	if err := host.Create(port.Name, m, parts...); err != nil {
		return fmt.Errorf("create veth pair %q and %q: %w", port.Name, inner.Name, err)
	}
	return nil
}

// attributes ask for one queue in each direction. Left to itself the kernel makes one
// for every processor there could be, takes all but one away again, and waits for
// that (drivers/net/veth.c, veth_init_queues).
func (e End) attributes(group uint32) []nl.NetlinkRequestData {
	return []nl.NetlinkRequestData{
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(e.Name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, e.MAC.HardwareAddr()),
		nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(e.MTU))),
		nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)),
		nl.NewRtAttr(unix.IFLA_NUM_TX_QUEUES, nl.Uint32Attr(1)),
		nl.NewRtAttr(unix.IFLA_NUM_RX_QUEUES, nl.Uint32Attr(1)),
	}
}
