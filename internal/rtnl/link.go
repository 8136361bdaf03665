package rtnl

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/remedy"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

// Link is one device as the kernel describes it.
type Link struct {
	Index       int
	Name        string
	Alias       string
	Group       uint32
	MTU         int // bytes
	MasterIndex int // of the bridge; 0: none
	PeerIndex   int // of the other end of a veth pair, in its own namespace
	NetNsID     int // of that namespace; NoPeer when it is this one, or there is none
	Promisc     int // who wants all frames that pass

	flags   uint32
	oper    uint8
	address mac.Addr

	Kind  string     // "veth", "tun", "bridge" …
	Data  Attributes // what the kind adds
	Qdisc string     // the kind of that at the root of its egress
	Muted bool       // IPv6 is disabled, see Mute
	Port  Attributes // what the bridge adds to its port; nil when the device is no bridge port

	AltNames bool // it has other names beside its own
	XDP      bool // a program sees its frames before all else

	carrier uint8
}

// MAC is the link's address.
func (l Link) MAC() mac.Addr { return l.address }

// Up reports whether the link is administratively up.
func (l Link) Up() bool { return l.flags&unix.IFF_UP != 0 }

// Carrier reports whether the link has carrier: a tap has it while a VMM holds
// it open.
func (l Link) Carrier() bool { return l.flags&unix.IFF_LOWER_UP != 0 }

// Plugged is Carrier for a device that may be down as well.
func (l Link) Plugged() bool { return l.carrier != 0 }

// Running reports whether the link is up in every respect (RFC 2863, ifOperStatus):
// what the bridge waits for before a port forwards.
func (l Link) Running() bool { return l.oper == netlink.OperUp }

// NoPeer is the namespace id of a link without a peer elsewhere.
const NoPeer = -1

// LinkNamed asks for one device by name. IsNotExist tells that there is none.
func (c *Conn) LinkNamed(name string) (Link, error) {
	l, err := c.link(nl.NewIfInfomsg(unix.AF_UNSPEC), named(name))
	if err != nil {
		return Link{}, fmt.Errorf("read link %q: %w", name, err)
	}
	return l, nil
}

// LinkAt asks for one device by index.
func (c *Conn) LinkAt(index int) (Link, error) {
	l, err := c.link(at(index))
	if err != nil {
		return Link{}, fmt.Errorf("read link %d: %w", index, err)
	}
	return l, nil
}

func (c *Conn) link(parts ...nl.NetlinkRequestData) (Link, error) {
	msg, err := c.Get(unix.RTM_GETLINK, unix.RTM_NEWLINK, append(parts, skipStats())...)
	if err != nil {
		return Link{}, err
	}
	return parseLink(msg)
}

// Links lists the devices of the namespace.
func (c *Conn) Links() ([]Link, error) { return c.links() }

// LinksOf lists the ports of the bridge with that index; the kernel filters.
func (c *Conn) LinksOf(bridge int) ([]Link, error) {
	return c.links(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
}

// passes is how often links are listed, at most, before what was seen is put together.
const passes = 3

// links puts the passes together where each is called inconsistent: of a thousand
// devices, while pods come and go, no pass is ever consistent. A device that has been
// there all along is in one of them; so may be one that has gone meanwhile.
func (c *Conn) links(filter ...nl.NetlinkRequestData) ([]Link, error) {
	parts := append([]nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC), skipStats()}, filter...)
	seen := map[int]Link{}
	for range passes {
		msgs, consistent, err := c.pass(all, unix.RTM_GETLINK, unix.RTM_NEWLINK, parts...)
		if err != nil {
			return nil, fmt.Errorf("list links: %w", err)
		}
		if consistent {
			clear(seen)
		}
		for _, m := range msgs {
			l, err := parseLink(m)
			if err != nil {
				return nil, fmt.Errorf("list links: %w", err)
			}
			seen[l.Index] = l
		}
		if consistent {
			break
		}
	}
	return slices.SortedFunc(maps.Values(seen), func(a, b Link) int { return cmp.Compare(a.Index, b.Index) }), nil
}

// SetLink changes attributes of one device in one message.
func (c *Conn) SetLink(index int, attrs ...nl.NetlinkRequestData) error {
	return c.Change(unix.RTM_SETLINK, 0, append([]nl.NetlinkRequestData{at(index)}, attrs...)...)
}

// SetUp sets one device administratively up.
func (c *Conn) SetUp(index int) error { return c.setFlags(index, unix.IFF_UP) }

// SetDown sets one device administratively down.
func (c *Conn) SetDown(index int) error { return c.setFlags(index, 0) }

func (c *Conn) setFlags(index int, flags uint32) error {
	msg := at(index)
	msg.Flags, msg.Change = flags, unix.IFF_UP
	return c.Change(unix.RTM_SETLINK, 0, msg)
}

// Delete removes one device.
func (c *Conn) Delete(index int) error {
	return c.Change(unix.RTM_DELLINK, 0, at(index))
}

// DeleteGroup removes every device of a group in one transaction: the kernel
// waits for readers once, not once a device (net/core/rtnetlink.c,
// rtnl_group_dellink).
func (c *Conn) DeleteGroup(group uint32) error {
	return c.Change(unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), inGroup(group))
}

// Mute turns IPv6 off on devices of the namespace. Without an IPv4 address
// that is all it takes to make the kernel send nothing of its own through it:
// no address configuration alone (addrgenmode none) still lets multicast
// listener reports out. A kernel without IPv6 has nothing to turn off.
func (c *Conn) Mute(names ...string) error {
	return c.Inside(func() error {
		for _, name := range names {
			if err := write(muteFile(name), "1"); err != nil && !errors.Is(err, unix.ENOENT) {
				return remedy.Mount(fmt.Errorf("turn IPv6 off on %q: %w", name, err), sysctls)
			}
		}
		return nil
	})
}

// CanMute reports why Mute could not work on any device, if so. It writes nothing.
func CanMute() error {
	file := muteFile("default") // of devices to come
	if err := unix.Access(file, unix.W_OK); err != nil && !errors.Is(err, unix.ENOENT) {
		return remedy.Mount(fmt.Errorf("write %s: %w", file, err), sysctls)
	}
	return nil
}

// write needs neither Go's poller nor to create the file.
func write(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	_, err = unix.Write(fd, []byte(value))
	return errors.Join(err, unix.Close(fd))
}

// disabled reads the same from what the kernel says of IPv6 on a link: nothing
// where there is none.
func disabled(afSpec Attributes) bool {
	const disableIPv6 = 26 // DEVCONF_DISABLE_IPV6, in an array of int32 (linux/ipv6.h)
	inet6, err := ParseAttributes(afSpec.Get(unix.AF_INET6))
	conf := inet6.Get(unix.IFLA_INET6_CONF)
	return err != nil || len(conf) < 4*(disableIPv6+1) || nl.NativeEndian().Uint32(conf[4*disableIPv6:]) != 0
}

const sysctls = "/proc/sys"

func muteFile(name string) string { return sysctls + "/net/ipv6/conf/" + name + "/disable_ipv6" }

// at begins a message about the device of that index.
func at(index int) *nl.IfInfomsg {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return msg
}

func named(name string) *nl.RtAttr {
	return nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name))
}

func inGroup(group uint32) *nl.RtAttr {
	return nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group))
}

// skipStats leaves the counters out of the answer, half of its bytes.
func skipStats() *nl.RtAttr {
	const filterSkipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	return nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(filterSkipStats))
}

// parseLink reads what is of interest here. The library's own function trusts the
// length of every attribute.
func parseLink(msg []byte) (Link, error) {
	if len(msg) < unix.SizeofIfInfomsg {
		return Link{}, fmt.Errorf("parse link: %d bytes: %w", len(msg), unix.EPROTO)
	}
	header := nl.DeserializeIfInfomsg(msg)
	l := Link{Index: int(header.Index), flags: header.Flags, NetNsID: NoPeer}
	top, err := ParseAttributes(msg[unix.SizeofIfInfomsg:])
	if err == nil {
		err = l.read(top)
	}
	if err != nil {
		return Link{}, fmt.Errorf("parse link %q: %w", l.Name, err)
	}
	return l, nil
}

func (l *Link) read(top Attributes) (err error) {
	l.Name, l.Alias, l.Qdisc = top.text(unix.IFLA_IFNAME), top.text(unix.IFLA_IFALIAS), top.text(unix.IFLA_QDISC)
	l.address = mac.From(top.Get(unix.IFLA_ADDRESS))
	l.oper, _ = top.Uint8(unix.IFLA_OPERSTATE)
	l.carrier, _ = top.Uint8(unix.IFLA_CARRIER)
	l.AltNames = len(top.Get(unix.IFLA_PROP_LIST)) > 0
	l.Group, _ = top.Uint32(unix.IFLA_GROUP)
	for _, a := range []struct {
		number uint16
		into   *int
	}{
		{unix.IFLA_MTU, &l.MTU},
		{unix.IFLA_MASTER, &l.MasterIndex},
		{unix.IFLA_LINK, &l.PeerIndex},
		{unix.IFLA_LINK_NETNSID, &l.NetNsID},
		{unix.IFLA_PROMISCUITY, &l.Promisc},
	} {
		if v, sent := top.Uint32(a.number); sent {
			*a.into = int(int32(v))
		}
	}
	spec, err := ParseAttributes(top.Get(unix.IFLA_AF_SPEC))
	if err != nil {
		return err
	}
	l.Muted = disabled(spec)
	xdp, err := ParseAttributes(top.Get(unix.IFLA_XDP))
	if err != nil {
		return err
	}
	attached, _ := xdp.Uint8(unix.IFLA_XDP_ATTACHED)
	l.XDP = attached != 0
	info, err := ParseAttributes(top.Get(unix.IFLA_LINKINFO))
	if err != nil {
		return err
	}
	l.Kind = info.text(nl.IFLA_INFO_KIND)
	if l.Data, err = ParseAttributes(info.Get(nl.IFLA_INFO_DATA)); err != nil {
		return err
	}
	if info.text(nl.IFLA_INFO_SLAVE_KIND) == "bridge" {
		l.Port, err = ParseAttributes(info.Get(nl.IFLA_INFO_SLAVE_DATA))
	}
	return err
}

func (a Attributes) text(n uint16) string { return unix.ByteSliceToString(a.Get(n)) }
