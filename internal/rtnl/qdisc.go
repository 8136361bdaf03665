package rtnl

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// QdiscOptions reads what the kind of the root qdisc of the device at index adds;
// Link.Qdisc tells the kind. The kernel offers only a dump of every device's:
// asked for one it tells all who listen for changes (net/sched/sch_api.c,
// qdisc_get_notify). ENOENT when the device has none.
func (c *Conn) QdiscOptions(index int) (Attributes, error) {
	msgs, err := c.Dump(unix.RTM_GETQDISC, unix.RTM_NEWQDISC, rootOf(index))
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	for _, msg := range msgs {
		options, mine, err := parseQdisc(msg, index)
		if err != nil {
			return nil, fmt.Errorf("parse the qdisc of link %d: %w", index, err)
		}
		if mine {
			return options, nil
		}
	}
	return nil, fmt.Errorf("root qdisc of link %d: %w", index, unix.ENOENT)
}

// parseQdisc tells whether it is the root qdisc of the device at index. The options
// of others are left alone: not all kinds have attributes there.
func parseQdisc(msg []byte, index int) (options Attributes, mine bool, err error) {
	if len(msg) < nl.SizeofTcMsg {
		return nil, false, fmt.Errorf("%d bytes: %w", len(msg), unix.EPROTO)
	}
	of := nl.DeserializeTcMsg(msg)
	if of.Ifindex != int32(index) || of.Parent != netlink.HANDLE_ROOT {
		return nil, false, nil
	}
	attrs, err := ParseAttributes(msg[nl.SizeofTcMsg:])
	if err == nil {
		options, err = ParseAttributes(attrs.Get(nl.TCA_OPTIONS))
	}
	return options, true, err
}

// SetQdisc replaces the root qdisc of the device at index. Options is nil for a
// kind that has none.
func (c *Conn) SetQdisc(index int, kind string, options *nl.RtAttr) error {
	parts := []nl.NetlinkRequestData{rootOf(index), nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kind))}
	if options != nil {
		parts = append(parts, options)
	}
	return c.Change(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, parts...)
}

func rootOf(index int) *nl.TcMsg {
	return &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: netlink.HANDLE_ROOT}
}
