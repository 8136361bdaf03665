package redirect

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Restore makes the directions between tap and pod interface work again that do not.
func Restore(c *rtnl.Conn, tap, inner int) error {
	for _, d := range []direction{out(tap, inner), in(tap, inner)} {
		way, err := d.observe(c)
		if err == nil && !way.Works() {
			if err = Clear(c, d.from); err == nil {
				err = d.connect(c)
			}
		}
		if err != nil {
			return fmt.Errorf("restore the redirect from the device at index %d: %w", d.from, err)
		}
	}
	return nil
}

// Clear takes every filter away that stands where frames come in at the device at
// index, whoever has put it there, so that Pass can begin anew. The device must be
// one that frames do nothing at but pass on.
func Clear(c *rtnl.Conn, index int) error {
	qdisc := &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Handle: ingress, Parent: netlink.HANDLE_INGRESS}
	err := c.Change(unix.RTM_DELQDISC, 0, qdisc)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) { // none there (net/sched/sch_api.c, tc_get_qdisc)
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete ingress qdisc: %w", err)
	}
	return nil
}
