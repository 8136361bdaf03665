package config

import (
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tapbridge/tapbridge/pkg/address"
)

// Addressing is what a result wants of the pod interface. A route without a gateway
// goes by the first of its family that the addresses have.
func Addressing(ips []*types100.IPConfig, routes []*types.Route) (w address.Wish) {
	gateways := map[bool]netip.Addr{} // by whether they are of IPv6
	for _, i := range ips {
		w.Addresses = append(w.Addresses, prefixOf(i.Address))
		if via := addrOf(i.Gateway); via.IsValid() && !gateways[via.Is6()].IsValid() {
			gateways[via.Is6()] = via
		}
	}
	w.Settle = gateways[true].IsValid()
	for _, r := range routes {
		w.Routes = append(w.Routes, routeOf(r, gateways))
	}
	return w
}

func routeOf(r *types.Route, gateways map[bool]netip.Addr) address.Route {
	route := address.Route{To: prefixOf(r.Dst), Via: addrOf(r.GW), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority}
	if !route.Via.IsValid() {
		route.Via = gateways[route.To.Addr().Is6()]
	}
	if r.Table != nil {
		route.Table = *r.Table
	}
	if r.Scope != nil {
		route.Scope = *r.Scope
	}
	return route
}

// addrOf is not valid for what is no address.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func prefixOf(n net.IPNet) netip.Prefix {
	a := addrOf(n.IP)
	ones, bits := n.Mask.Size()
	if a.Is4() && bits == net.IPv6len*8 {
		ones -= bits - net.IPv4len*8
	}
	return netip.PrefixFrom(a, ones)
}
