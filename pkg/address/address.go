// Package address gives the pod interface of mode veth what IPAM has assigned to it,
// addresses and routes, and tells what of it is missing. A guest behind a tap gives
// itself its own; the addresses of the bridge are the business of package gateway.
package address

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Wish is what the interface should have.
type Wish struct {
	Addresses []netip.Prefix
	Routes    []Route

	// Gateways are for routes without one, of which Missing does not ask where they lead
	// to: those of other plugins may be among them.
	Gateway4, Gateway6 netip.Addr
}

// Route is one of the pod. Zero values are the kernel's defaults.
type Route struct {
	To       netip.Prefix
	Via      netip.Addr // not valid: the gateway of its family, or none, on the link
	MTU      int        // bytes
	AdvMSS   int        // bytes
	Priority int        // the metric
	Table    int        // 0: main
	Scope    int        // unix.RT_SCOPE_UNIVERSE …
}

func (r Route) String() string {
	s := r.To.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	if r.Table != 0 {
		s += fmt.Sprintf(" table %d", r.Table)
	}
	return s
}

// settleWait bounds the wait for duplicate address detection, which takes a second
// or two.
const settleWait = 5 * time.Second

// Configure gives the interface what it should have. What is there already is an
// error (unix.EEXIST), but for routes: more ways to one destination share the load.
func Configure(c *rtnl.Conn, ifName string, w Wish) error {
	l, err := c.LinkNamed(ifName)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(w.Addresses, is6) {
		if err := c.Inside(func() error { return enableIPv6(ifName) }); err != nil {
			return err
		}
	}
	handle, err := c.Handle()
	if err != nil {
		return err
	}
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index, Name: l.Name}}
	for _, a := range w.Addresses {
		if err := handle.AddrAdd(device, &netlink.Addr{IPNet: rtnl.IPNet(a)}); err != nil {
			return fmt.Errorf("add %s to %q: %w", a, ifName, err)
		}
	}
	if w.Gateway6.IsValid() { // else nobody is reached by IPv6 yet
		if err := settle(c, l); err != nil {
			return err
		}
	}
	for _, r := range w.Routes {
		if is6(r.To) {
			r.Via = cmp.Or(r.Via, w.Gateway6)
		} else {
			r.Via = cmp.Or(r.Via, w.Gateway4)
		}
		route := r.netlink()
		route.LinkIndex = l.Index
		if err := handle.RouteAddEcmp(route); err != nil {
			return fmt.Errorf("add route %s to %q: %w", r, ifName, err)
		}
	}
	return nil
}

func is6(p netip.Prefix) bool { return p.Addr().Is6() }

// enableIPv6 lets the interface have addresses of IPv6 and keep them when it is set
// down. The loopback of the pod comes with it: a runtime may have switched off both.
func enableIPv6(ifName string) error {
	const conf = "/proc/sys/net/ipv6/conf/"
	for _, setting := range []struct{ file, value string }{
		{conf + "lo/disable_ipv6", "0"},
		{conf + ifName + "/disable_ipv6", "0"},
		{conf + ifName + "/keep_addr_on_down", "1"},
	} {
		if err := os.WriteFile(setting.file, []byte(setting.value), 0); err != nil {
			return fmt.Errorf("enable IPv6 on %q: %w", ifName, err)
		}
	}
	return nil
}

// settle waits until no address is tentative. Without carrier none is ever tried.
func settle(c *rtnl.Conn, l rtnl.Link) error {
	for deadline := time.Now().Add(settleWait); ; time.Sleep(20 * time.Millisecond) {
		list, err := c.AddressesOf(l.Index)
		if err != nil {
			return err
		}
		tentative := false
		for _, a := range list {
			if a.Flags&unix.IFA_F_DADFAILED != 0 {
				return fmt.Errorf("%q cannot have %s: somebody on the network has it", l.Name, a.IPNet)
			}
			tentative = tentative || a.Flags&unix.IFA_F_TENTATIVE != 0
		}
		if !tentative {
			return nil
		}
		if time.Now().After(deadline) {
			now, err := c.LinkAt(l.Index)
			if err == nil && now.Carrier() {
				err = fmt.Errorf("the addresses of %q are not ready after %v", l.Name, settleWait)
			}
			return err
		}
	}
}

// Missing lists in words what the interface and the pod lack.
func Missing(c *rtnl.Conn, ifName string, w Wish) (differences []string, err error) {
	l, err := c.LinkNamed(ifName)
	if err != nil {
		return nil, err
	}
	all, err := c.Addresses()
	if err != nil {
		return nil, err
	}
	for _, a := range w.Addresses {
		if !slices.Contains(all[l.Index], a) {
			differences = append(differences, fmt.Sprintf("address %s is missing on %q", a, ifName))
		}
	}
	for _, r := range append(connected(w.Addresses), w.Routes...) {
		there, err := isThere(c, r)
		if err != nil {
			return nil, err
		}
		if !there {
			differences = append(differences, fmt.Sprintf("route %s is missing", r))
		}
	}
	return differences, nil
}

// connected are the routes that the kernel makes with the addresses.
func connected(addresses []netip.Prefix) (routes []Route) {
	for _, a := range addresses {
		if !a.IsSingleIP() {
			routes = append(routes, Route{To: a.Masked()})
		}
	}
	return routes
}

func isThere(c *rtnl.Conn, r Route) (bool, error) {
	handle, err := c.Handle()
	if err != nil {
		return false, err
	}
	filter, mask := r.netlink(), uint64(netlink.RT_FILTER_DST)
	if r.Table != 0 {
		mask |= netlink.RT_FILTER_TABLE
	}
	family := netlink.FAMILY_V4
	if is6(r.To) {
		family = netlink.FAMILY_V6
	}
	found, err := handle.RouteListFiltered(family, filter, mask)
	if err != nil {
		return false, fmt.Errorf("look for route %s: %w", r, err)
	}
	return slices.ContainsFunc(found, r.uses), nil
}

// uses reports whether r leads the same way, or one of them.
func (r Route) uses(found netlink.Route) bool {
	here := func(gateway net.IP) bool { return gateway.Equal(net.IP(r.Via.AsSlice())) }
	return !r.Via.IsValid() || here(found.Gw) ||
		slices.ContainsFunc(found.MultiPath, func(hop *netlink.NexthopInfo) bool { return here(hop.Gw) })
}

func (r Route) netlink() *netlink.Route {
	return &netlink.Route{
		Dst: rtnl.IPNet(r.To.Masked()), Gw: net.IP(r.Via.AsSlice()), MTU: r.MTU, AdvMSS: r.AdvMSS,
		Priority: r.Priority, Table: r.Table, Scope: netlink.Scope(r.Scope),
	}
}
