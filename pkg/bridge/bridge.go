// Package bridge finds or creates a Linux bridge and makes a device a port of
// it, with all its flags. Forwarding entries are the business of package fdb.
package bridge

import (
	"crypto/rand"
	"errors"
	"fmt"

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
	return Bridge{Name: l.Name, Index: l.Index, MAC: l.MAC(), MTU: l.MTU, Up: l.Up(), Made: l.Alias == madeByUs, VLANAware: filtering == 1, DefaultPVID: pvid}
}

// Create makes the bridge that want describes but for its MAC, which is random.
// It stays as it is whatever joins it: MAC and MTU are pinned by having been set
// (the kernel would otherwise follow the ports), and a port forwards at once (no
// forward delay). Its own stack is muted, so that the node does not appear on the
// guests' network uninvited.
func Create(c *rtnl.Conn, want Bridge) (Bridge, error) {
	want.MAC, want.Made = random(), true
	if err := add(c, want); err != nil {
		return Bridge{}, fmt.Errorf("create bridge %q: %w", want.Name, err)
	}
	b, err := Find(c, want.Name)
	if err != nil {
		return Bridge{}, err
	}
	if want.Index = b.Index; want.VLANAware && !b.VLANAware {
		err = fmt.Errorf("VLAN filtering: %w", ErrUnsupported)
	} else {
		err = raise(c, want)
	}
	if err != nil {
		return want, errors.Join(fmt.Errorf("create bridge %q: %w", want.Name, err), Delete(c, want))
	}
	return want, nil
}

func add(c *rtnl.Conn, b Bridge) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(Kind))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	if b.VLANAware { // a kernel without VLAN filtering skips it without a word
		data.AddRtAttr(nl.IFLA_BR_VLAN_FILTERING, flag(true))
	}
	return c.Change(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(b.Name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, b.MAC.HardwareAddr()),
		info)
}

func raise(c *rtnl.Conn, b Bridge) error {
	if err := c.Mute(b.Name); err != nil {
		return fmt.Errorf("turn IPv6 off: %w", err)
	}
	if err := b.setMTU(c, nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(madeByUs))); err != nil {
		return err
	}
	return c.SetUp(b.Index)
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

// KeepMAC gives the bridge its address back where a new port has changed it: the
// kernel lets a bridge whose address was never set follow the lowest of its
// ports (br_stp_recalculate_bridge_id), and its neighbours would lose it.
func (b Bridge) KeepMAC(c *rtnl.Conn) error {
	now, err := c.LinkAt(b.Index)
	if err != nil || now.MAC() == b.MAC || b.MAC.IsZero() {
		return err
	}
	if err := c.SetLink(b.Index, nl.NewRtAttr(unix.IFLA_ADDRESS, b.MAC.HardwareAddr())); err != nil {
		return fmt.Errorf("keep MAC %s of bridge %q: %w", b.MAC, b.Name, err)
	}
	return nil
}

// KeepMTU gives the bridge its MTU back where the kernel has forgotten it with
// the last port (br_mtu_auto_adjust). With other ports left the kernel is right:
// it takes the smallest of theirs.
func (b Bridge) KeepMTU(c *rtnl.Conn) error {
	now, err := c.LinkAt(b.Index)
	if err != nil || now.MTU == b.MTU {
		return err
	}
	if ports, err := c.LinksOf(b.Index); err != nil || len(ports) > 0 {
		return err
	}
	return b.setMTU(c)
}

func (b Bridge) setMTU(c *rtnl.Conn, more ...nl.NetlinkRequestData) error {
	if err := c.SetLink(b.Index, append(more, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(b.MTU))))...); err != nil {
		return fmt.Errorf("set MTU %d of bridge %q: %w", b.MTU, b.Name, err)
	}
	return nil
}

// random is a locally administered unicast address.
func random() (a mac.Addr) {
	rand.Read(a[:]) // never fails (crypto/rand)
	a[0] = a[0]&^1 | 2
	return a
}
