package bench

import (
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// filter makes an eBPF program decide about what comes in at a device.
func filter(c *rtnl.Conn, index, program int) error {
	ingress := netlink.MakeHandle(0xffff, 0)
	qdisc := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: ingress, Parent: netlink.HANDLE_INGRESS}}
	handle, err := c.Handle()
	if err != nil {
		return err
	}
	if err := handle.QdiscAdd(qdisc); err != nil {
		return err
	}
	return handle.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: ingress, Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:          program, Name: "benchmark", DirectAction: true,
	})
}
