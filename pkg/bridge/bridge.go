// Package bridge finds or creates a Linux bridge and makes a device a port of
// it, with all its flags. Forwarding entries are the business of package fdb.
package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

// Kind is what the kernel calls the link kind of bridges.
const Kind = "bridge"

// madeByUs is the alias of a bridge that Create made: its addresses are ours to
// change. It is not the record of an attachment, and cannot be read as one.
const madeByUs = "tapbridge-bridge/1"

// DefaultPVID is that of a new bridge.
const DefaultPVID = 1

// DefaultMTU is what a bridge gets that is created without a wish, in bytes.
const DefaultMTU = 1500

var (
	// ErrNotFound says that there is no device of the bridge's name.
	ErrNotFound = errors.New("no such device in this network namespace")
	// ErrNotBridge says that the device of that name is something else.
	ErrNotBridge = errors.New("the device of that name is not a bridge")
)

// Bridge is a bridge of the node, found or to be created.
type Bridge struct {
	Name  string
	Index int // 0: not there yet
	MAC   mac.Addr
	MTU   int // bytes
	Up    bool
	Made  bool // by Create, now or earlier

	unfinished bool // a Create is at it, or has ended before it was done
	nameless   bool // neither MAC set nor a port: the next port's becomes its own

	VLANAware   bool   // vlan_filtering is on
	DefaultPVID uint16 // the VLAN that a new port is put into; 0: none
}

// Find reads the bridge of that name. Errors: ErrNotFound, ErrNotBridge.
func Find(c *rtnl.Conn, name string) (Bridge, error) {
	l, err := c.LinkNamed(name)
	switch {
	case rtnl.IsNotExist(err):
		return Bridge{}, fmt.Errorf("bridge %q: %w", name, ErrNotFound)
	case err != nil:
		return Bridge{}, fmt.Errorf("bridge %q: %w", name, err)
	case l.Kind != Kind:
		return Bridge{}, fmt.Errorf("bridge %q: %w", name, ErrNotBridge)
	}
	return Of(l), nil
}

// Of is the bridge that l describes.
func Of(l rtnl.Link) Bridge {
	filtering, _ := l.Data.Uint8(nl.IFLA_BR_VLAN_FILTERING)
	pvid, _ := l.Data.Uint16(nl.IFLA_BR_VLAN_DEFAULT_PVID)
	b := Bridge{Name: l.Name, Index: l.Index, MAC: l.MAC(), MTU: l.MTU, Up: l.Up(), Made: l.Alias == madeByUs, VLANAware: filtering == 1, DefaultPVID: pvid}
	b.unfinished, b.nameless = l.Group == b.unfinishedGroup(), nameless(l)
	return b
}

// Create makes the bridge that want describes but for its MAC, which is random.
// It stays as it is whatever joins it: MAC and MTU are pinned by having been set
// (the kernel would otherwise follow the ports), and a port forwards at once (no
// forward delay). Its own stack is muted, so that the node does not appear on the
// guests' network uninvited. A Create that is killed leaves a bridge that is to be
// finished.
func Create(c *rtnl.Conn, want Bridge) (Bridge, error) {
	want.MAC, want.Made = random(), true
	err := want.create(c)
	if err != nil {
		err = errors.Join(fmt.Errorf("create bridge %q: %w", want.Name, err), want.discard(c))
	}
	return want, err
}

func (b *Bridge) create(c *rtnl.Conn) error {
	if err := add(c, *b); err != nil {
		return err
	}
	made, err := Find(c, b.Name)
	if err != nil {
		return err
	}
	b.Index = made.Index
	if b.VLANAware && !made.VLANAware {
		return ErrNoVLANs
	}
	return Finish(c, *b)
}

// discard removes what has been made of a bridge, told by its address.
func (b *Bridge) discard(c *rtnl.Conn) error {
	made, err := Find(c, b.Name)
	if errors.Is(err, ErrNotFound) || err == nil && made.MAC != b.MAC {
		return nil
	}
	if err != nil {
		return err
	}
	return Delete(c, made)
}

// unfinishedGroup is the link group of a bridge that Create has not finished: far
// from the numbers that people use, and those of attachments, and nobody else's.
func (b Bridge) unfinishedGroup() uint32 {
	return 0x34<<24 | uint32(b.MAC[3])<<16 | uint32(b.MAC[4])<<8 | uint32(b.MAC[5])
}

// BeingMade reports whether a Create may be at it: until that is done, MTU, Made and
// Up are not what they will be.
func (b Bridge) BeingMade() bool { return b.unfinished }

// Unfinished reports whether a Create has ended before it was done. Under the
// bridge's lock there is none that may still be at it.
func (b Bridge) Unfinished() bool { return b.unfinished && b.Made }

// add makes the bridge and tells that it is ours in one system call. The second
// message goes by the group, which a bridge that somebody else has made meanwhile
// does not have. Only a change pins the MTU (net/core/dev.c, netif_set_mtu_ext).
func add(c *rtnl.Conn, b Bridge) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(Kind))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	if b.VLANAware { // a kernel without VLAN filtering skips it without a word
		data.AddRtAttr(nl.IFLA_BR_VLAN_FILTERING, flag(true))
	}
	group := nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(b.unfinishedGroup()))
	return c.Sequence(
		rtnl.Message{Kind: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Parts: []nl.NetlinkRequestData{
			nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(b.Name)),
			nl.NewRtAttr(unix.IFLA_ADDRESS, b.MAC.HardwareAddr()), group, mtu(another(b.MTU)), info,
		}},
		rtnl.Message{Kind: unix.RTM_NEWLINK, Parts: []nl.NetlinkRequestData{ // of whatever is in that group
			nl.NewIfInfomsg(unix.AF_UNSPEC), group, nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(madeByUs)), mtu(b.MTU),
		}})
}

// Finish does the rest of Create's work.
func Finish(c *rtnl.Conn, b Bridge) error {
	if err := c.Mute(b.Name); err != nil {
		return err
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = int32(b.Index), unix.IFF_UP, unix.IFF_UP
	if err := c.Change(unix.RTM_SETLINK, 0, msg, nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(0))); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// Delete removes a bridge that Create made, unless somebody has joined it since.
func Delete(c *rtnl.Conn, b Bridge) error {
	ports, err := c.LinksOf(b.Index)
	if err != nil || len(ports) > 0 {
		return err
	}
	if err := c.Delete(b.Index); err != nil && !rtnl.IsNotExist(err) {
		return fmt.Errorf("delete bridge %q: %w", b.Name, err)
	}
	return nil
}

// Pin keeps a port with that address from changing the bridge, when it joins and
// when it leaves. A bridge whose MAC was never set takes the lowest of its ports'
// (net/bridge/br_stp_if.c, br_stp_recalculate_bridge_id); one whose MTU was never
// set forgets it with its last port (net/bridge/br_if.c, br_mtu_auto_adjust). What
// has been set stays. It is done before the port joins, so that there is no moment
// at which the bridge is another.
func (b Bridge) Pin(c *rtnl.Conn, port mac.Addr) error {
	if b.follows(port) {
		now, err := Find(c, b.Name) // somebody may have given it a port meanwhile, and with it another MAC
		if err != nil {
			return err
		}
		if now.follows(port) {
			if err := c.SetLink(now.Index, nl.NewRtAttr(unix.IFLA_ADDRESS, now.MAC.HardwareAddr())); err != nil {
				return fmt.Errorf("pin MAC %s of bridge %q: %w", now.MAC, b.Name, err)
			}
		}
	}
	if b.MTU == DefaultMTU { // what the kernel falls back to
		return nil
	}
	if ports, err := c.LinksOf(b.Index); err != nil || len(ports) > 0 {
		return err
	}
	if err := c.Sequence(b.setMTU(another(b.MTU)), b.setMTU(b.MTU)); err != nil {
		return fmt.Errorf("pin MTU %d of bridge %q: %w", b.MTU, b.Name, err)
	}
	return nil
}

// follows reports whether the bridge would take the MAC of such a port.
func (b Bridge) follows(port mac.Addr) bool {
	return (b.nameless || bytes.Compare(port[:], b.MAC[:]) < 0) && !b.MAC.IsZero()
}

func (b Bridge) setMTU(bytes int) rtnl.Message {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(b.Index)
	return rtnl.Message{Kind: unix.RTM_SETLINK, Parts: []nl.NetlinkRequestData{msg, mtu(bytes)}}
}

// another is an MTU that differs and does no harm for a moment: below 1280 the
// kernel would drop IPv6 addresses. 65535 is the largest.
func another(mtu int) int {
	if mtu == 65535 {
		return mtu - 1
	}
	return mtu + 1
}

func mtu(bytes int) *nl.RtAttr { return nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(bytes))) }

// nameless tells by the identity for STP, which has the address of a port, or the
// one that was set, or none.
func nameless(l rtnl.Link) bool {
	const sizeofID, priority = 8, 2 // struct ifla_bridge_id
	id := l.Data.Get(nl.IFLA_BR_BRIDGE_ID)
	return len(id) == sizeofID && mac.From(id[priority:]).IsZero()
}

// random is a locally administered unicast address. It is no secret: crypto/rand
// would bring big numbers and ciphers into every start of the plugin.
func random() (a mac.Addr) {
	for i := range a {
		a[i] = byte(rand.Uint32())
	}
	a[0] = a[0]&^1 | 2
	return a
}
