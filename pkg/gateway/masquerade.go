package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/ip"
	"github.com/containernetworking/plugins/pkg/utils"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"
)

// Owner is whose rules they are. All rules of the node, those of the reference
// plugins as well, are in one chain, each with its owner in a comment.
type Owner struct{ Network, Port, IfName string }

// instance is how a comment names the attachment, whatever its network.
func (o Owner) instance() string {
	return utils.MustFormatHashWithPrefix(16, "", o.IfName+":"+o.Port)
}

// tag keeps the rules of a network of ours apart from those of another plugin's
// that has the same name.
func (o Owner) tag() string { return "tapbridge/" + o.Network }

// network is how a comment names the network.
func (o Owner) network() string { return utils.MustFormatHashWithPrefix(16, "", o.tag()) }

// Masquerading asks whether nft and the kernel can do it. ErrUnsupported, with the
// reason. It changes nothing.
func Masquerading() error {
	nft, err := knftables.New(knftables.InetFamily, table)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Add(&knftables.Chain{
		Name: "probe", Type: knftables.PtrTo(knftables.NATType),
		Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: knftables.PtrTo(knftables.SNATPriority),
	})
	tx.Add(&knftables.Rule{Chain: "probe", Rule: "masquerade"})
	if err := nft.Check(context.Background(), tx); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return nil
}

// Masquerade gives what the guest sends to other subnets the node's address. All
// rules are made in one transaction.
func Masquerade(o Owner, guests []netip.Prefix) error {
	nftables := "nftables"
	list := make([]*net.IPNet, len(guests))
	for i, g := range guests {
		list[i] = &net.IPNet{IP: g.Addr().AsSlice(), Mask: net.CIDRMask(g.Bits(), g.Addr().BitLen())}
	}
	if err := ip.SetupIPMasqForNetworks(&nftables, list, o.tag(), o.IfName, o.Port); err != nil {
		return fmt.Errorf("masquerade: %w", err)
	}
	return nil
}

// Unmasked are the guest's addresses that have no rule.
func Unmasked(o Owner, guests []netip.Prefix) (lacking []netip.Prefix, err error) {
	all, err := rules()
	for _, g := range guests {
		found := false
		for _, r := range all {
			found = found || r.instance() == o.instance() && bytes.Contains(r.expressions, g.Addr().AsSlice())
		}
		if !found {
			lacking = append(lacking, g)
		}
	}
	return lacking, err
}

// Unmasquerade removes the rules of an attachment, for which its network need not
// be known. It takes one request when there are none, and no nft.
func Unmasquerade(o Owner) error {
	return removeRules(func(r rule) bool { return r.instance() == o.instance() })
}

// UnmasqueradeOthers removes the rules of the network for attachments that are not
// to be kept.
func UnmasqueradeOthers(network string, keep []Owner) error {
	kept := map[string]bool{}
	for _, o := range keep {
		kept[o.instance()] = true
	}
	hash := Owner{Network: network}.network()
	return removeRules(func(r rule) bool { return r.network() == hash && !kept[r.instance()] })
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
