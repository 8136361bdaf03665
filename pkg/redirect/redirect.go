package redirect

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Pair is the state of the redirect between tap and pod interface, wanted or
// seen.
type Pair struct {
	Out bool // what the guest sends into the tap leaves by the pod interface
	In  bool // what arrives at the pod interface goes to the tap
}

// Both is what a working attachment has.
var Both = Pair{Out: true, In: true}

// ingress is the hook at which a device hands over what it has received.
var ingress = netlink.MakeHandle(0xffff, 0)

// Connect makes the devices at the two indexes pass every frame on to each
// other.
func Connect(c *rtnl.Conn, tap, inner int) error {
	if err := Pass(c, tap, inner); err != nil {
		return fmt.Errorf("redirect from the tap: %w", err)
	}
	if err := Pass(c, inner, tap); err != nil {
		return fmt.Errorf("redirect to the tap: %w", err)
	}
	return nil
}

// Pass sends what comes in at one device out at the other: u32 with a match that
// is always true, because cls_matchall is not in every kernel.
func Pass(c *rtnl.Conn, from, to int) error {
	handle, err := c.Handle()
	if err != nil {
		return err
	}
	qdisc := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: from, Handle: ingress, Parent: netlink.HANDLE_INGRESS}}
	if err := handle.QdiscAdd(qdisc); err != nil {
		return fmt.Errorf("add ingress qdisc: %w", err)
	}
	filter := &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: from, Parent: ingress, Priority: 1, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{netlink.NewMirredAction(to)},
	}
	if err := handle.FilterAdd(filter); err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	return nil
}

// Observe reads the redirect between the devices at the two indexes.
func Observe(c *rtnl.Conn, tap, inner int) (Pair, error) {
	out, err := Passes(c, tap, inner)
	if err != nil {
		return Pair{}, err
	}
	in, err := Passes(c, inner, tap)
	return Pair{Out: out, In: in}, err
}

// Passes reports whether every frame that comes in at one device goes out at the
// other: the first filter decides, so it must be ours.
func Passes(c *rtnl.Conn, from, to int) (bool, error) {
	handle, err := c.Handle()
	if err != nil {
		return false, err
	}
	filters, err := handle.FilterList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: from}}, ingress)
	if err != nil {
		return false, fmt.Errorf("list the filters of link %d: %w", from, err)
	}
	if len(filters) == 0 {
		return false, nil
	}
	u32, ok := filters[0].(*netlink.U32)
	return ok && matchesAll(u32) && redirects(u32.Actions, to), nil
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
