package guard

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nft"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

// Observed are the guards of all ports, by name.
type Observed map[string]Guard

// Observe reads all guards of the network namespace.
func Observe(c *rtnl.Conn) (Observed, error) {
	whole, err := whole(c)
	if err != nil {
		return nil, err
	}
	found := Observed{}
	words := map[element][]string{} // of a port, by set
	for _, s := range sets {
		list, err := elements(c, s.name)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if s.name == ports {
				found[e.port()] = Guard{Whole: whole}
				continue
			}
			at := element{s.name, e.port()}
			words[at] = append(words[at], e.text())
		}
	}
	for port, g := range found {
		g.MACs = ordered(words[element{macs, port}])
		g.Addresses = strings.TrimSpace(ordered(words[element{ipv4, port}]) + " " + ordered(words[element{ipv6, port}]))
		found[port] = g
	}
	return found, nil
}

// text is what the element says of its port.
func (e element) text() string {
	value := []byte(e.value())
	if e.set == macs {
		return mac.Addr(value).String()
	}
	a, _ := netip.AddrFromSlice(value) // the kernel holds keys to the set's length
	return a.String()
}

// ordered is as List has it.
func ordered(words []string) string {
	slices.SortFunc(words, func(a, b string) int {
		x, errX := netip.ParseAddr(a)
		y, errY := netip.ParseAddr(b)
		if errX != nil || errY != nil {
			return strings.Compare(a, b)
		}
		return x.Compare(y)
	})
	return strings.Join(words, " ")
}

// whole reports whether all rules of this version are there, and no other ones,
// and the table is not switched off.
func whole(c *rtnl.Conn) (bool, error) {
	tables, err := nft.Get(namespace(c), request(unix.NFT_MSG_GETTABLE, 0, nft.Text(unix.NFTA_TABLE_NAME, table)))
	if nft.Missing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for table %q: %w", table, err)
	}
	there, err := nft.Get(namespace(c), request(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, nft.Text(unix.NFTA_RULE_TABLE, table)))
	if err != nil && !nft.Missing(err) {
		return false, fmt.Errorf("list the rules of table %q: %w", table, err)
	}
	flags := tables[0].Get(unix.NFTA_TABLE_FLAGS)
	return len(flags) == 4 && flags[3]&unix.NFT_TABLE_F_DORMANT == 0 && slices.Equal(comments(there), wanted()), nil
}

// comments tell the rules, those of each chain in their order.
func comments(there []rtnl.Attributes) (list []string) {
	for _, r := range there {
		chain := unix.ByteSliceToString(r.Get(unix.NFTA_RULE_CHAIN))
		list = append(list, chain+": "+nft.CommentIn(r.Get(unix.NFTA_RULE_USERDATA)))
	}
	slices.SortStableFunc(list, byChain)
	return list
}

func wanted() (list []string) {
	for _, r := range rules {
		list = append(list, r.chain+": "+r.comment())
	}
	slices.SortStableFunc(list, byChain)
	return list
}

func byChain(a, b string) int {
	a, _, _ = strings.Cut(a, ":")
	b, _, _ = strings.Cut(b, ":")
	return strings.Compare(a, b)
}
