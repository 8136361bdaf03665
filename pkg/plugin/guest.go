package plugin

import (
	"net"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/dan"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// hostAccess replaces owner and group, where they are ids of the pod, by what
// they are on the host: that is what the kernel tells of a tap, and what the
// record on the port says. In mode host-tap the VMM is on the host.
func hostAccess(site *attach.Site, c *config.Config) error {
	if c.Mode != port.Tap {
		return nil
	}
	access, err := site.HostAccess(tap.Access{Owner: c.Owner, Group: c.Group})
	c.Owner, c.Group = access.Owner, access.Group
	return err
}

// describe tells Kata of the guest's NIC, where that is wanted.
func (r *request) describe(c *config.Config, a port.Attachment, result *types100.Result) error {
	nic := a.Want().DAN
	if nic == nil {
		return nil
	}
	nic.Addresses, nic.Routes = r.guestNetwork(c, result)
	return dan.Kata.Write(*nic)
}

// guestNetwork is what a result says about the guest's NIC. A result's routes
// are those of all its interfaces: the guest's lead to a gateway that it can
// reach.
func (r *request) guestNetwork(c *config.Config, result *types100.Result) (addresses []string, routes []dan.Route) {
	own := r.ownIPs(c, result)
	for _, i := range own {
		addresses = append(addresses, i.Address.String())
	}
	for _, route := range result.Routes {
		if gateway, reachable := gatewayOf(route, own); reachable {
			routes = append(routes, guestRoute(route, gateway))
		}
	}
	return addresses, routes
}

// gatewayOf is the route's own gateway, or that of the address it goes with
// (CNI: "gw" of a route defaults to the interface's); nil when neither has one.
func gatewayOf(route *types.Route, own []*types100.IPConfig) (gateway net.IP, reachable bool) {
	near := slices.IndexFunc(own, func(i *types100.IPConfig) bool {
		if route.GW != nil {
			return i.Address.Contains(route.GW) || i.Gateway.Equal(route.GW)
		}
		return (i.Address.IP.To4() == nil) == (route.Dst.IP.To4() == nil)
	})
	switch {
	case near < 0:
		return nil, false
	case route.GW != nil:
		return route.GW, true
	}
	return own[near].Gateway, true
}

// guestRoute leaves the destination of a default route out, as runtime-rs does
// in its own.
func guestRoute(route *types.Route, gateway net.IP) dan.Route {
	r := dan.Route{Dest: route.Dst.String(), MTU: route.MTU}
	if gateway != nil {
		r.Gateway = gateway.String()
	}
	if ones, _ := route.Dst.Mask.Size(); ones == 0 && gateway != nil {
		r.Dest = ""
	}
	if route.Scope != nil {
		r.Scope = *route.Scope
	}
	return r
}
