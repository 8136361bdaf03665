package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"

	"github.com/tapbridge/tapbridge/internal/remedy"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/internal/shell"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Bridge looks at the bridge of that name: whether ports can join it, and whether
// frames will pass.
func Bridge(site *attach.Site, name string) ([]Finding, error) {
	br, err := bridge.Find(site.Host(), name)
	found := []Finding{Joinable(name, br, err)}
	if err != nil {
		return found, nil // which has been said
	}
	l, err := site.Host().LinkAt(br.Index)
	if err != nil {
		return nil, err
	}
	ports, err := site.Host().LinksOf(br.Index)
	if err != nil {
		return nil, err
	}
	addresses, err := site.Host().Addresses()
	if err != nil {
		return nil, err
	}
	found = append(found, spanningTree(l), vlans(site.Host(), br))
	found = append(found, uplinks(l, ports, addresses[l.Index])...)
	return append(found, strangers(br, ports)...), nil
}

// Joinable is the part of Bridge that decides whether an ADD can work. br and err are
// what was found under that name.
func Joinable(name string, br bridge.Bridge, err error) Finding {
	object := about(name)
	switch {
	case errors.Is(err, bridge.ErrNotFound):
		return bad(object, "there is no such device in this network namespace", fmt.Sprintf(`ip link add %[1]s type bridge && ip link set %[1]s up, or set "createBridge": true`, shell.Word(name)))
	case errors.Is(err, bridge.ErrNotBridge):
		return bad(object, "the device of that name is not a bridge", `name another "bridge"`)
	case err != nil:
		return bad(object, remedy.Without(err), Remedy(err))
	case !br.Up:
		down := bad(object, "it is down: no frame passes", fmt.Sprintf("ip link set %s up", shell.Word(name)))
		down.Limited = true
		return down
	}
	return ok(object, fmt.Sprintf("it is up, MTU %d", br.MTU))
}

func about(name string) string { return "bridge " + name }

// spanningTree makes a port wait twice for the forward delay before it forwards
// (net/bridge/br_stp_timer.c), in which a guest boots and gives up on DHCP. It is a choice
// where the delay is the least there is.
func spanningTree(l rtnl.Link) Finding {
	state, _ := l.Data.Uint32(nl.IFLA_BR_STP_STATE)
	delay, _ := l.Data.Uint32(nl.IFLA_BR_FORWARD_DELAY)
	if state == 0 || delay == 0 {
		return ok(about(l.Name), "a new port forwards at once")
	}
	const perSecond = 100       // USER_HZ
	const least = 2 * perSecond // with STP on (net/bridge/br_private_stp.h, BR_MIN_FORWARD_DELAY)
	says := fmt.Sprintf("STP is on: a new port forwards nothing for %d s", 2*delay/perSecond)
	remedy := fmt.Sprintf("ip link set %s type bridge stp_state 0", shell.Word(l.Name))
	if delay <= least {
		return note(about(l.Name), says, remedy+", unless it needs STP")
	}
	return bad(about(l.Name), says, fmt.Sprintf("%s; where it needs STP, forward_delay %d makes it %d s", remedy, least, 2*least/perSecond))
}

func vlans(host *rtnl.Conn, br bridge.Bridge) Finding {
	if br.VLANAware {
		return ok(about(br.Name), fmt.Sprintf("it is VLAN-aware, default VLAN %d", br.DefaultPVID))
	}
	remedy := fmt.Sprintf("ip link set %s type bridge vlan_filtering 1", shell.Word(br.Name))
	if can, err := bridge.CanFilterVLANs(host); err == nil && !can {
		remedy = kernelWithVLANs
	}
	return note(about(br.Name), "it is not VLAN-aware: no vlan or vlanTrunk, and its uplinks stay promiscuous", remedy+", if that is wanted")
}

// uplinks are not missed where the bridge has an address, which makes the node the guests'
// router.
func uplinks(br rtnl.Link, ports []rtnl.Link, addresses []netip.Prefix) (found []Finding) {
	all := bridge.Uplinks(br, ports)
	if len(all) == 0 && slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr().IsGlobalUnicast() }) {
		return []Finding{ok(about(br.Name), "it has no uplink, but an address: guests reach others by way of the node, if that forwards")}
	}
	if len(all) == 0 {
		return []Finding{note(about(br.Name), "it has no uplink (a veth end or a tap does not count), and no address: guests reach only this node",
			fmt.Sprintf("ip link set DEVICE master %s, if they should reach others", shell.Word(br.Name)))}
	}
	for _, u := range all {
		for _, p := range ports {
			if p.Name == u.Name {
				found = append(found, uplink(br, p, u, largestMTU(ports)))
			}
		}
	}
	return found
}

// largestMTU is that of the guests on these ports.
func largestMTU(ports []rtnl.Link) (mtu int) {
	for _, p := range ports {
		if a, err := port.ParseRecord(p.Alias); err == nil {
			mtu = max(mtu, a.MTU)
		}
	}
	return mtu
}

func uplink(br, l rtnl.Link, u bridge.Uplink, guestMTU int) Finding {
	object := fmt.Sprintf("uplink %s of %s", l.Name, br.Name)
	switch {
	case !l.Up():
		return bad(object, "it is down", fmt.Sprintf("ip link set %s up", shell.Word(l.Name)))
	case !l.Carrier():
		return bad(object, "it has no carrier", "look at the cable, or at what is on the other side")
	case l.MTU < br.MTU:
		remedy := fmt.Sprintf("ip link set %s mtu %d", shell.Word(l.Name), br.MTU)
		if l.MTU >= guestMTU {
			remedy += fmt.Sprintf(", or ip link set %s mtu %d", shell.Word(br.Name), l.MTU)
		}
		return bad(object, fmt.Sprintf("its MTU is %d, less than the bridge's %d: larger frames of guests are dropped", l.MTU, br.MTU), remedy)
	case u.Promiscuous:
		return note(object, "it is promiscuous, the node sees everybody's frames: "+strings.Join(u.Few(), ", "),
			`"macTableManager": "libvirt" on every port of a VLAN-aware bridge, if that is too much`)
	}
	return ok(object, "it is up and filters for the guests' addresses")
}

// strangers are veth ends and taps on the bridge that are not ours: no harm, but
// what guests send to unknown addresses reaches them.
func strangers(br bridge.Bridge, ports []rtnl.Link) []Finding {
	var names []string
	for _, p := range ports {
		_, err := port.ParseRecord(p.Alias)
		ours := err == nil || port.Marked(p.Name, p.Group)
		if local := p.Kind == "veth" || p.Kind == "tun"; local && !ours {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	const few = 3
	says := strings.Join(names[:min(few, len(names))], ", ")
	if more := len(names) - few; more > 0 {
		says += fmt.Sprintf(" and %d more", more)
	}
	return []Finding{note(about(br.Name), says+": ports that are not tapbridge's", "give them tapbridge as well, if guests must not be flooded to them")}
}
