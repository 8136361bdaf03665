package config

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tapbridge/tapbridge/pkg/address"
)

// Addressing is what a result wants of the pod interface. ErrInvalid where it has what
// is no address or no network.
func Addressing(ips []*types100.IPConfig, routes []*types.Route) (w address.Wish, err error) {
	for _, i := range ips {
		a := prefixOf(i.Address)
		if !a.IsValid() {
			return w, fmt.Errorf("%w: %s is no address with the length of its prefix", ErrInvalid, i.Address.String())
		}
		w.Addresses = append(w.Addresses, a)
		switch via := addrOf(i.Gateway); {
		case via.Is4() && !w.Gateway4.IsValid():
			w.Gateway4 = via
		case via.Is6() && !w.Gateway6.IsValid():
			w.Gateway6 = via
		}
	}
	for _, r := range routes {
		route := address.Route{To: prefixOf(r.Dst), Via: addrOf(r.GW), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority}
		if !route.To.IsValid() {
			return w, fmt.Errorf("%w: a route to %s, which is no network", ErrInvalid, r.Dst.String())
		}
		if r.Table != nil {
			route.Table = *r.Table
		}
		if r.Scope != nil {
			route.Scope = *r.Scope
		}
		w.Routes = append(w.Routes, route)
	}
	return w, nil
}

// addrOf is not valid for what is no address.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// prefixOf is not valid for an address whose mask is that of another family, or none.
func prefixOf(n net.IPNet) netip.Prefix {
	a := addrOf(n.IP)
	ones, bits := n.Mask.Size()
	if a.Is4() && bits == net.IPv6len*8 {
		ones -= bits - net.IPv4len*8
	}
	if bits == 0 {
		ones = -1
	}
	return netip.PrefixFrom(a, ones)
}
