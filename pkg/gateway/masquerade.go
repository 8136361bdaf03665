package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nft"
)

// Masquerading asks whether the kernel can do it. ErrUnsupported, with the reason. It
// changes nothing.
func Masquerading() error {
	some := owned{guest: netip.MustParsePrefix("10.0.0.2/24")}
	if err := nft.Try(netns.None(), define(some)...); err != nil {
		return fmt.Errorf("%w: nftables: %w", ErrUnsupported, err)
	}
	return nil
}

// Masquerade gives what the guest sends to other subnets the node's address, but for
// multicast. All rules are made in one transaction, in which those go that the
// attachment has already.
func Masquerade(o Owner, guests []netip.Prefix) error {
	stale, err := rulesThat(o.has)
	if err != nil {
		return err
	}
	wanted := make([]owned, len(guests))
	for i, g := range guests {
		wanted[i] = owned{o, g}
	}
	if err := nft.Commit(netns.None(), append(define(wanted...), stale.deletions()...)...); err != nil {
		return fmt.Errorf("masquerade: %w", err)
	}
	return nil
}

// Unmasked are the guest's addresses that have no rule.
func Unmasked(o Owner, guests []netip.Prefix) (lacking []netip.Prefix, err error) {
	there, err := rulesThat(o.has)
	for _, g := range guests {
		if !slices.ContainsFunc(there, func(r rule) bool { return r.guest == g && r.current }) {
			lacking = append(lacking, g)
		}
	}
	return lacking, err
}

// Unmasquerade removes the rules of an attachment, for which its network need not
// be known. It takes one request when there are none.
func Unmasquerade(o Owner) error { return removeRules(o.has) }

// UnmasqueradeOthers removes the rules of the network for attachments that are not
// to be kept.
func UnmasqueradeOthers(network string, keep []Owner) error {
	network = Owner{Network: network}.network()
	return removeRules(func(r rule) bool {
		return r.Network == network && !slices.ContainsFunc(keep, func(o Owner) bool { return o.has(r) })
	})
}

// removeRules begins again when somebody else has removed one of them meanwhile.
func removeRules(which func(rule) bool) error {
	const attempts = 10
	for range attempts {
		mine, err := rulesThat(which)
		if err != nil || len(mine) == 0 {
			return err
		}
		if err := mine.remove(); !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return fmt.Errorf("remove masquerade rules: changed by others %d times: %w", attempts, unix.EBUSY)
}
