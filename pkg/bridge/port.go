package bridge

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Port attributes that the netlink library has no name for (linux/if_link.h).
const (
	attrBroadcastFlood = 30 // IFLA_BRPORT_BCAST_FLOOD, Linux 4.12
	attrIsolated       = 33 // IFLA_BRPORT_ISOLATED, Linux 4.18
	attrLocked         = 39 // IFLA_BRPORT_LOCKED, Linux 5.18
	attrMulticastFlood = 27 // IFLA_BRPORT_MCAST_FLOOD, Linux 4.9
)

// ErrUnsupported says that the running kernel lacks a port flag.
var ErrUnsupported = errors.New("not supported by this kernel")

// Port is a device's membership of a bridge, wanted or seen: every flag that
// decides which frames pass.
type Port struct {
	Bridge         string // "" in an observation: no bridge port
	Learning       bool   // learn source addresses
	UnicastFlood   bool   // send frames for unknown unicast addresses here
	MulticastFlood bool
	BroadcastFlood bool
	Isolated       bool // no frames from and to other isolated ports
	Hairpin        bool // frames may leave where they came in
	Locked         bool // only sources with an entry here may send
	BPDUGuard      bool // where the bridge takes part in a spanning tree: the first frame of that protocol disables the port
	VLANs          VLANs
	Blocked        bool // no frame passes, though the device has carrier and the bridge is up
}

// Join makes a device a port. The flags cannot ride along (EOPNOTSUPP), so keep
// the device down until Set has been called.
func Join(c *rtnl.Conn, index int, b Bridge) error {
	err := c.SetLink(index, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(b.Index))))
	if errors.Is(err, unix.EXFULL) { // net/bridge/br_if.c, find_portno
		err = fmt.Errorf("%w: it has as many ports as a bridge can have, 1023: remove some, or use another bridge", err)
	}
	if err != nil {
		return fmt.Errorf("join bridge %q: %w", b.Name, err)
	}
	return nil
}

// Set gives the port at index all its flags in one message. ErrUnsupported when
// the kernel is too old for one that p wants: it skips attributes it does not
// know without a word.
func (p Port) Set(c *rtnl.Conn, index int) error {
	flags := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for _, a := range p.attributes() {
		flags.AddRtAttr(a.number, flag(*a.on))
	}
	if err := c.Change(unix.RTM_SETLINK, 0, portAt(index), flags); err != nil {
		return fmt.Errorf("set port flags: %w", err)
	}
	if p.Locked || p.Isolated {
		return p.confirm(c, index)
	}
	return nil
}

// portAt begins a message about the port at index, as the bridge sees it.
func portAt(index int) *nl.IfInfomsg {
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(index)
	return msg
}

func (p Port) confirm(c *rtnl.Conn, index int) error {
	l, err := c.LinkAt(index)
	if err != nil {
		return err
	}
	if _, known := l.Port.Uint8(attrIsolated); p.Isolated && !known {
		return fmt.Errorf("port flag isolated needs Linux 4.18: %w", ErrUnsupported)
	}
	if _, known := l.Port.Uint8(attrLocked); p.Locked && !known {
		return fmt.Errorf("port flag locked needs Linux 5.18: %w", ErrUnsupported)
	}
	return nil
}

// Observe reads the membership of a link in the bridge that master describes. Its
// VLANs are read by ReadVLANs, for another message.
func Observe(l, master rtnl.Link) Port {
	p := Port{Bridge: master.Name, Blocked: blocked(l, master)}
	for _, a := range p.attributes() {
		v, _ := l.Port.Uint8(uint16(a.number))
		*a.on = v == 1
	}
	return p
}

// blocked tells a port that somebody has switched off from one that waits for
// carrier, or for the bridge: those are disabled as well.
func blocked(l, master rtnl.Link) bool {
	const disabled = 0 // BR_STATE_DISABLED
	state, is := l.Port.Uint8(nl.IFLA_BRPORT_STATE)
	return is && state == disabled && l.Running() && master.Up()
}

// attribute ties a field of Port to its netlink attribute.
type attribute struct {
	number int
	on     *bool
}

func (p *Port) attributes() []attribute {
	return []attribute{
		{nl.IFLA_BRPORT_MODE, &p.Hairpin},
		{nl.IFLA_BRPORT_LEARNING, &p.Learning},
		{nl.IFLA_BRPORT_UNICAST_FLOOD, &p.UnicastFlood},
		{attrMulticastFlood, &p.MulticastFlood},
		{attrBroadcastFlood, &p.BroadcastFlood},
		{attrIsolated, &p.Isolated},
		{attrLocked, &p.Locked},
		{nl.IFLA_BRPORT_GUARD, &p.BPDUGuard},
	}
}

func flag(on bool) []byte {
	if on {
		return nl.Uint8Attr(1)
	}
	return nl.Uint8Attr(0)
}
