package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/gateway"
)

// Gateway is what a configuration asks of the bridge's own stack.
type Gateway struct {
	Is         bool // isGateway: the bridge carries the guests' gateway
	Default    bool // isDefaultGateway: and their default route leads there
	Force      bool // forceAddress: in place of another address
	Masquerade bool // ipMasq
}

// Given reports whether the configuration asks for anything.
func (g Gateway) Given() bool { return g.Is || g.Masquerade }

// readGateway reads the keys of the reference bridge plugin about the gateway. It
// refuses combinations that would have no effect, which that plugin does not.
func (c *Config) readGateway() error {
	g := &c.Gateway
	for _, k := range []struct {
		name string
		into *bool
	}{{"isGateway", &g.Is}, {"isDefaultGateway", &g.Default}, {"forceAddress", &g.Force}, {"ipMasq", &g.Masquerade}} {
		if err := c.object.read(k.name, k.into); err != nil {
			return err
		}
	}
	if g.Force && !g.Is && !g.Default {
		return invalid("forceAddress", true, `it needs "isGateway": nothing else gives the bridge an address`)
	}
	if g.Masquerade && c.IPAM == "" {
		return invalid("ipMasq", true, `it needs "ipam" for the guest's address`)
	}
	if !g.Is && !g.Default {
		return nil
	}
	key := "isGateway"
	if g.Default {
		key, g.Is = "isDefaultGateway", true
	}
	return c.checkGateway(key)
}

func (c *Config) checkGateway(key string) error {
	switch {
	case c.IPAM == "":
		return invalid(key, true, `it needs "ipam" for the gateway's address`)
	case c.IPAM == "dhcp":
		return invalid(key, true, `with "ipam" of type "dhcp" the gateway is what the DHCP server names, not this node`)
	case c.VLANs.Given() && (c.VLANs.Access != 0 || !c.VLANs.KeepDefault):
		return invalid(key, true, `the bridge's address is in its default VLAN, which "vlan", and "vlanTrunk" without "preserveDefaultVlan", takes from the guest`)
	}
	return nil
}

// CheckBridge refuses what cannot come true on br. ErrInvalid.
func (g Gateway) CheckBridge(br bridge.Bridge) error {
	if g.Masquerade && !g.Is && br.Index == 0 {
		return invalid("ipMasq", true, fmt.Sprintf(`it needs "isGateway": bridge %q is yet to be created, and gets no address without`, br.Name))
	}
	return nil
}

// Complete adds to a delegate's answer what isGateway and isDefaultGateway stand
// for: gateways, and a default route in each family that has none.
func (g Gateway) Complete(r *types100.Result) error {
	for _, i := range r.IPs {
		if !g.Given() {
			break
		}
		at, err := gatewayOf(i)
		if err != nil {
			return err
		}
		if g.Is {
			i.Gateway = at.Addr().AsSlice()
		}
		if g.Default && !hasDefault(r.Routes, at.Addr()) {
			r.Routes = append(r.Routes, &types.Route{Dst: everywhere(at.Addr()), GW: i.Gateway})
		}
	}
	return nil
}

// Wish is what guests with these addresses need of their bridge.
func (g Gateway) Wish(ips []*types100.IPConfig) (gateway.Wish, error) {
	w := gateway.Wish{Assign: g.Is, Replace: g.Force}
	for _, i := range ips {
		at, err := gatewayOf(i)
		if err != nil {
			return gateway.Wish{}, err
		}
		if !slices.Contains(w.Addresses, at) {
			w.Addresses = append(w.Addresses, at)
		}
		if guest := prefixOf(i.Address); g.Masquerade && !slices.Contains(w.Masquerade, guest) {
			w.Masquerade = append(w.Masquerade, guest)
		}
	}
	return w, nil
}

// gatewayOf is the gateway with the prefix that the bridge must have it with: the
// delegate's, or the first address of the subnet.
func gatewayOf(i *types100.IPConfig) (netip.Prefix, error) {
	guest := prefixOf(i.Address)
	at := guest.Masked().Addr().Next()
	if i.Gateway != nil {
		at = addrOf(i.Gateway)
	}
	if !guest.Contains(at) || at == guest.Addr() {
		return netip.Prefix{}, fmt.Errorf("%w: it gave the guest %s, and %s cannot be the gateway of that", ErrInvalid, guest, at)
	}
	return netip.PrefixFrom(at, guest.Bits()), nil
}

func hasDefault(routes []*types.Route, family netip.Addr) bool {
	return slices.ContainsFunc(routes, func(r *types.Route) bool {
		dst := prefixOf(r.Dst)
		return dst.Bits() == 0 && dst.Addr().Is4() == family.Is4()
	})
}

func everywhere(family netip.Addr) net.IPNet {
	bits := family.BitLen()
	return net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
}
