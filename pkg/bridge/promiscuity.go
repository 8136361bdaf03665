package bridge

import (
	"fmt"
	"strings"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Uplink is a port of a bridge through which the bridge reaches other machines:
// any port that is neither a veth end nor a tap, since behind those are the pods
// and guests of this one. So a network card is an uplink, a bond, a VLAN device, a
// macvlan, a tunnel.
type Uplink struct {
	Bridge, Name string
	Promiscuous  bool
	Because      []Reason // what keeps it so; none when it is not
}

// Reason is one device and what it does that keeps an uplink promiscuous.
type Reason struct {
	Device string // a port, the bridge, or the uplink itself
	Does   string
}

func (r Reason) String() string { return r.Device + " " + r.Does }

// Uplinks finds the uplinks among the ports of bridge br, and why those that are
// promiscuous have to be (net/bridge/br_if.c, br_manage_promisc): the bridge must
// know beforehand all addresses that the uplink has to let in. It does when it is
// VLAN-aware, takes no frame for itself that is not its own, and no port but the
// uplink learns or floods.
func Uplinks(br rtnl.Link, ports []rtnl.Link) (uplinks []Uplink) {
	for _, p := range ports {
		if p.Kind == "veth" || p.Kind == "tun" {
			continue
		}
		u := Uplink{Bridge: br.Name, Name: p.Name, Promiscuous: p.Promisc > 0}
		if u.Promiscuous {
			u.Because = reasons(br, ports, p)
		}
		uplinks = append(uplinks, u)
	}
	return uplinks
}

func reasons(br rtnl.Link, ports []rtnl.Link, uplink rtnl.Link) (all []Reason) {
	if !Of(br).VLANAware {
		all = append(all, Reason{br.Name, "is not VLAN-aware"})
	}
	if br.Promisc > 0 {
		all = append(all, Reason{br.Name, "is promiscuous itself"})
	}
	for _, p := range ports {
		if does := selfTaught(Observe(p, br)); p.Index != uplink.Index && does != "" {
			all = append(all, Reason{p.Name, does})
		}
	}
	if all == nil { // the bridge has done its part (IFF_UNICAST_FLT, br_port_clear_promisc)
		all = []Reason{{uplink.Name, "has a driver that does not filter addresses, or a program that listens to everything"}}
	}
	return all
}

// selfTaught tells how frames find a port without forwarding entries, if they do;
// the kernel calls it an auto port (net/bridge/br_private.h, BR_AUTO_MASK).
func selfTaught(p Port) string {
	switch {
	case p.Learning && p.UnicastFlood:
		return "learns and floods"
	case p.Learning:
		return "learns"
	case p.UnicastFlood:
		return "floods"
	}
	return ""
}

// Few are the first of the reasons in words, and how many more there are: a bridge
// can have a thousand ports, and a person begins with one.
func (u Uplink) Few() (words []string) {
	const few = 3
	for _, r := range u.Because[:min(few, len(u.Because))] {
		words = append(words, r.String())
	}
	if more := len(u.Because) - few; more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	return words
}

// String is a line for people.
func (u Uplink) String() string {
	if !u.Promiscuous {
		return fmt.Sprintf("%s: uplink %s is not promiscuous", u.Bridge, u.Name)
	}
	return fmt.Sprintf("%s: uplink %s is promiscuous: %s", u.Bridge, u.Name, strings.Join(u.Few(), ", "))
}
