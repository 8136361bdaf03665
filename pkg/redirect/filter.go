package redirect

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// ingress is the hook at which a device hands over what it has received.
var ingress = netlink.MakeHandle(0xffff, 0)

func addIngress(c *rtnl.Conn, index int) error {
	handle, err := c.Handle()
	if err != nil {
		return err
	}
	qdisc := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: ingress, Parent: netlink.HANDLE_INGRESS}}
	if err := handle.QdiscAdd(qdisc); err != nil {
		return fmt.Errorf("add ingress qdisc: %w", err)
	}
	return nil
}

func firstAt(index int) netlink.FilterAttrs {
	return netlink.FilterAttrs{LinkIndex: index, Parent: ingress, Priority: 1, Protocol: unix.ETH_P_ALL}
}

// addMirred takes u32 with a match that is always true, because cls_matchall is
// not in every kernel.
func addMirred(c *rtnl.Conn, from, to int) error {
	handle, err := c.Handle()
	if err != nil {
		return err
	}
	filter := &netlink.U32{FilterAttrs: firstAt(from), Actions: []netlink.Action{netlink.NewMirredAction(to)}}
	if err := handle.FilterAdd(filter); err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	return nil
}

// addProgram makes the program behind fd decide what becomes of each frame. It
// lives as long as the filter, and that as long as the device.
func addProgram(c *rtnl.Conn, index int, name string, fd int) error {
	handle, err := c.Handle()
	if err != nil {
		return err
	}
	filter := &netlink.BpfFilter{FilterAttrs: firstAt(index), Fd: fd, Name: name, DirectAction: true}
	if err := handle.FilterAdd(filter); err != nil {
		return fmt.Errorf("add filter %q: %w", name, err)
	}
	return nil
}

// firstFilter is the one that decides about each frame; nil when there is none.
func firstFilter(c *rtnl.Conn, index int) (netlink.Filter, error) {
	handle, err := c.Handle()
	if err != nil {
		return nil, err
	}
	filters, err := handle.FilterList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, ingress)
	if err != nil {
		return nil, fmt.Errorf("list the filters of link %d: %w", index, err)
	}
	if len(filters) == 0 {
		return nil, nil
	}
	return filters[0], nil
}

func isMirred(f netlink.Filter, to int) bool {
	u32, ok := f.(*netlink.U32)
	return ok && matchesAll(u32) && redirects(u32.Actions, to)
}

func matchesAll(f *netlink.U32) bool {
	if f.Protocol != unix.ETH_P_ALL || f.Sel == nil {
		return false
	}
	for _, key := range f.Sel.Keys {
		if key.Mask != 0 {
			return false
		}
	}
	return true
}

func redirects(actions []netlink.Action, to int) bool {
	if len(actions) != 1 {
		return false
	}
	m, ok := actions[0].(*netlink.MirredAction)
	return ok && m.MirredAction == netlink.TCA_EGRESS_REDIR && m.Ifindex == to
}

// is reports whether f runs p for every frame.
func (p program) is(f netlink.Filter) bool {
	bpf, ok := f.(*netlink.BpfFilter)
	return ok && bpf.Protocol == unix.ETH_P_ALL && bpf.DirectAction && bpf.Name == p.name
}
