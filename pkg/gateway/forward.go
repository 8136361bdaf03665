package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/internal/shell"
)

// The sysctls are those of the thread's network namespace, the bridge's.
const (
	ipv4     = "/proc/sys/net/ipv4/"
	ipv6     = "/proc/sys/net/ipv6/"
	forward4 = ipv4 + "ip_forward"
	forward6 = ipv6 + "conf/all/forwarding"
)

func isIPv6(p netip.Prefix) bool { return p.Addr().Is6() }

// unmute lets a bridge that was made without IPv6 have addresses of it. It must
// not listen to routers: any guest could claim to be one.
func unmute(d Device, want []netip.Prefix, undo *Undo) error {
	if !slices.ContainsFunc(want, isIPv6) {
		return nil
	}
	conf := ipv6 + "conf/" + d.Name + "/"
	muted, err := read(conf + "disable_ipv6")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: bridge %q cannot have %s: this kernel has no IPv6", ErrAddress, d.Name, want[0])
	}
	if err != nil || muted == "0" {
		return err
	}
	if err := set(conf+"accept_ra", "0", undo); err != nil {
		return err
	}
	return set(conf+"disable_ipv6", "0", undo)
}

// Forwards reports whether the node forwards packets of every family of the
// wanted addresses; if not, which sysctl says so.
func Forwards(w Wish) (sysctl string, err error) {
	for _, file := range w.switches() {
		if value, err := read(file); err != nil || value != "1" {
			return file, err
		}
	}
	return "", nil
}

// switches are the sysctls that must be on.
func (w Wish) switches() (files []string) {
	if !w.Assign {
		return nil
	}
	if slices.ContainsFunc(w.Addresses, func(p netip.Prefix) bool { return !isIPv6(p) }) {
		files = append(files, forward4)
	}
	if slices.ContainsFunc(w.Addresses, isIPv6) {
		files = append(files, forward6)
	}
	return files
}

// Forward lets the node forward, family by family. ErrAddress where that would
// cost the node a route of its own. After an error it is the caller who runs undo.
func Forward(c *rtnl.Conn, w Wish, undo *Undo) error {
	for _, file := range w.switches() {
		if err := turnOn(c, file, undo); err != nil {
			return err
		}
	}
	return nil
}

// turnOn remembers what else the kernel changes with the switch: forwarding of
// every device, and that redirects are accepted (net/ipv4/devinet.c,
// inet_forward_change; net/ipv6/addrconf.c, addrconf_fixup_forwarding).
func turnOn(c *rtnl.Conn, file string, undo *Undo) error {
	if value, err := read(file); err != nil || value == "1" {
		return err
	}
	root := ipv4
	if file == forward6 {
		root = ipv6
		if err := keepsRoutes(c); err != nil {
			return err
		}
	}
	for _, pattern := range []string{"conf/*/forwarding", "conf/all/accept_redirects"} {
		files, _ := filepath.Glob(root + pattern) // the pattern is well-formed
		if err := remember(files, undo); err != nil {
			return err
		}
	}
	return set(file, "1", undo)
}

// remember does without a device that has gone since the files were listed.
func remember(files []string, undo *Undo) error {
	for _, f := range files {
		was, err := read(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		undo.will(func() error { return restore(f, was) })
	}
	return nil
}

// keepsRoutes refuses to turn IPv6 forwarding on while a default route depends on
// router advertisements: the kernel drops those with the switch
// (net/ipv6/route.c, rt6_purge_dflt_routers).
func keepsRoutes(c *rtnl.Conn) error {
	handle, err := c.Handle()
	if err != nil {
		return err
	}
	routes, err := handle.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Protocol: unix.RTPROT_RA}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list IPv6 routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if err := keepsDefault(c, r.LinkIndex); err != nil {
			return err
		}
	}
	return nil
}

// keepsDefault is keepsRoutes for a default route by way of that device. One that has
// gone took the route along.
func keepsDefault(c *rtnl.Conn, index int) error {
	l, err := c.LinkAt(index)
	if rtnl.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if accept, err := read(ipv6 + "conf/" + l.Name + "/accept_ra"); err != nil || accept != "2" {
		return errors.Join(err, fmt.Errorf("%w: IPv6 forwarding would cost the node its default route, which it has from router advertisements on %q: "+
			"sysctl -w net/ipv6/conf/%s/accept_ra=2", ErrAddress, l.Name, shell.Word(l.Name)))
	}
	return nil
}

func read(file string) (string, error) {
	b, err := os.ReadFile(file)
	return string(bytes.TrimSpace(b)), err
}

func set(file, value string, undo *Undo) error {
	was, err := read(file)
	if err != nil || was == value {
		return err
	}
	undo.will(func() error { return restore(file, was) })
	return write(file, value)
}

// write makes no file: the kernel would call that forbidden where a device has gone.
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// restore does without a device that is gone.
func restore(file, was string) error {
	now, err := read(file)
	if err == nil && now != was {
		err = write(file, was)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
