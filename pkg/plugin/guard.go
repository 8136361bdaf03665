package plugin

import (
	"fmt"
	"net/netip"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

// guarded are the addresses from which the guest may speak.
func guarded(guest mac.Addr, given []*types100.IPConfig) (string, error) {
	var addresses []netip.Addr
	for _, i := range given {
		a, _ := netip.AddrFromSlice(i.Address.IP)
		a = a.Unmap()
		if !a.IsGlobalUnicast() && !a.IsLinkLocalUnicast() {
			return "", fmt.Errorf("%w: it gave %s, from which no guest can speak", config.ErrInvalid, a)
		}
		addresses = append(addresses, a)
	}
	if len(addresses) == 0 {
		return "", fmt.Errorf("%w: it gave no address, which ipSpoofChk needs", config.ErrInvalid)
	}
	return guard.List(guest, addresses), nil
}
