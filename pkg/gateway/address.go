package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/internal/shell"
)

// Device is the bridge.
type Device struct {
	Name  string
	Index int
	Ours  bool // tapbridge made it, so its addresses are ours to change
}

// Has reports whether the bridge has any address but link-local ones, as it must
// when nobody is going to give it one.
func Has(c *rtnl.Conn, d Device) (bool, error) {
	have, err := addresses(c, d)
	return slices.ContainsFunc(have, func(a netlink.Addr) bool { return !a.IP.IsLinkLocalUnicast() }), err
}

// Missing are the wanted addresses that the bridge does not carry.
func Missing(c *rtnl.Conn, d Device, w Wish) ([]netip.Prefix, error) {
	have, err := addresses(c, d)
	return missing(have, w.Addresses), err
}

// Assign sees to it that the bridge carries the wanted addresses. Only a bridge
// of ours is changed, and of its addresses only those that are in the way, when
// the wish says so. ErrAddress, with the command that helps, in all other cases.
// After an error it is the caller who runs undo.
func Assign(c *rtnl.Conn, d Device, w Wish, undo *Undo) error {
	have, err := addresses(c, d)
	if err != nil {
		return err
	}
	lacks := missing(have, w.Addresses)
	if len(lacks) == 0 {
		return nil
	}
	if !w.Assign || !d.Ours {
		return notOurs(d, w, lacks)
	}
	obstacles := inTheWay(have, w.Addresses)
	if len(obstacles) > 0 && !w.Replace {
		return fmt.Errorf(`%w: bridge %q has %s, want %s: ip addr del %s dev %s, or set "forceAddress": true`,
			ErrAddress, d.Name, obstacles[0].IPNet, lacks[0], obstacles[0].IPNet, shell.Word(d.Name))
	}
	if err := unmute(d, lacks, undo); err != nil {
		return err
	}
	if err := remove(c, d, slices.Concat(obstacles, fallingWith(obstacles, have, w.Addresses)), undo); err != nil {
		return err
	}
	return add(c, d, w.Addresses, undo)
}

func notOurs(d Device, w Wish, lacks []netip.Prefix) error {
	why := "and was not made by tapbridge"
	if !w.Assign {
		why = `and without "isGateway" it gets none`
	}
	commands := make([]string, len(lacks))
	for i, p := range lacks {
		commands[i] = fmt.Sprintf("ip addr add %s dev %s", p, shell.Word(d.Name))
	}
	return fmt.Errorf("%w: bridge %q has no address %s %s: %s", ErrAddress, d.Name, lacks[0], why, strings.Join(commands, " && "))
}

func addresses(c *rtnl.Conn, d Device) ([]netlink.Addr, error) {
	list, err := c.AddressesOf(d.Index)
	if err != nil {
		return nil, fmt.Errorf("bridge %q: %w", d.Name, err)
	}
	return list, nil
}

func missing(have []netlink.Addr, want []netip.Prefix) (lacks []netip.Prefix) {
	for _, p := range want {
		if !slices.ContainsFunc(have, func(a netlink.Addr) bool { return prefix(a) == p }) {
			lacks = append(lacks, p)
		}
	}
	return lacks
}

// inTheWay are the addresses that cannot stand beside the wanted ones, as in the
// reference bridge plugin: of IPv4 any other, of IPv6 those of the same subnet.
func inTheWay(have []netlink.Addr, want []netip.Prefix) (obstacles []netlink.Addr) {
	for _, a := range have {
		p := prefix(a)
		clash := func(w netip.Prefix) bool {
			return p.Addr().Is4() == w.Addr().Is4() && (p.Addr().Is4() || p.Overlaps(w))
		}
		if !slices.Contains(want, p) && slices.ContainsFunc(want, clash) {
			obstacles = append(obstacles, a)
		}
	}
	return obstacles
}

// fallingWith are wanted addresses that the kernel may remove with the obstacles:
// secondary ones, with their primary. They are removed and added like the others,
// so that undoing brings them back.
func fallingWith(obstacles, have []netlink.Addr, want []netip.Prefix) (secondary []netlink.Addr) {
	for _, a := range have {
		p := prefix(a)
		if len(obstacles) > 0 && p.Addr().Is4() && a.Flags&unix.IFA_F_SECONDARY != 0 && slices.Contains(want, p) {
			secondary = append(secondary, a)
		}
	}
	return secondary
}

func prefix(a netlink.Addr) netip.Prefix {
	ip, _ := netip.AddrFromSlice(a.IP)
	ones, _ := a.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), ones)
}

// remove begins with the last, so that undoing begins with the first: of IPv4
// addresses in one subnet that is the primary one.
func remove(c *rtnl.Conn, d Device, list []netlink.Addr, undo *Undo) error {
	for _, a := range slices.Backward(list) {
		again := a
		if again.Broadcast == nil {
			again.Broadcast = net.IPv4zero // the library's word for none: nil would get it one
		}
		undo.will(func() error { return put(c, d, again) })
		if err := take(c, d, a); err != nil {
			return err
		}
	}
	return nil
}

func add(c *rtnl.Conn, d Device, want []netip.Prefix, undo *Undo) error {
	have, err := addresses(c, d)
	if err != nil {
		return err
	}
	for _, p := range missing(have, want) {
		a := netlink.Addr{IPNet: rtnl.IPNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // a guest that claims the gateway's address first would keep it, and all would wait a second
		}
		undo.will(func() error { return take(c, d, a) })
		if err := put(c, d, a); err != nil {
			return err
		}
	}
	return nil
}

func put(c *rtnl.Conn, d Device, a netlink.Addr) error {
	handle, err := c.Handle()
	if err != nil {
		return err
	}
	if err := handle.AddrAdd(device(d), &a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add %s to bridge %q: %w", a.IPNet, d.Name, err)
	}
	return nil
}

func take(c *rtnl.Conn, d Device, a netlink.Addr) error {
	if err := c.DeleteAddress(d.Index, a); err != nil && !rtnl.IsNotExist(err) {
		return fmt.Errorf("remove %s from bridge %q: %w", a.IPNet, d.Name, err)
	}
	return nil
}

func device(d Device) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.Index, Name: d.Name}}
}
