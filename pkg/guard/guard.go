// Package guard keeps a guest to its own addresses: nftables rules, in front of
// every bridge of the node, drop what a guarded port sends under other ones. When
// a port is guarded, and which addresses are its guest's, is decided elsewhere:
// in packages attach and config. Callers see to it that only one of them at a time
// calls into this package: package attach has a lock for that.
package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nft"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

// Modules of the kernel are what the rules are made of.
const Modules = "nf_tables and nft_meta_bridge"

// ErrUnsupported says that the kernel lacks them.
var ErrUnsupported = errors.New("ipSpoofChk needs the kernel modules " + Modules)

// Guard is what a guest may speak as.
type Guard struct {
	MACs      string // one, but for somebody's additions
	Addresses string // see List; none: it may ask a DHCP server for one, and no more
	Whole     bool   // the rules are those of this version, and on
}

// Of is the guard of a guest that has not got its addresses yet.
func Of(guest mac.Addr) Guard { return Guard{MACs: guest.String(), Whole: true} }

// List is the text for a guest's addresses, each once and in order. With one of
// IPv6 goes the link-local address that is made from the guest's MAC (RFC 4291,
// appendix A): guests that make theirs in another way must be given it as well.
func List(guest mac.Addr, addresses []netip.Addr) string {
	all := slices.Clone(addresses)
	if slices.ContainsFunc(addresses, netip.Addr.Is6) {
		all = append(all, linkLocal(guest))
	}
	slices.SortFunc(all, netip.Addr.Compare)
	words := make([]string, len(all))
	for i, a := range slices.Compact(all) {
		words[i] = a.String()
	}
	return strings.TrimSpace(strings.Join(words, " "))
}

func linkLocal(m mac.Addr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// Close lets nothing pass from the port but what the guest may send with the addresses
// of a List; with an empty one, what may be sent without any. What is left of an
// earlier port of the name goes in the same transaction. In it the rules are made as
// well, if they are not there, not whole, or of another version: not with every port,
// because the kernel waits some milliseconds where rules are replaced.
func Close(c *rtnl.Conn, port string, guest mac.Addr, list string) error {
	stale, err := staleOf(c, port)
	if err != nil {
		return err
	}
	elements, err := elementsFor(port, guest, list)
	if err != nil {
		return fmt.Errorf("guard port %q: %w", port, err)
	}
	changes := func() []*nl.NetlinkRequest { return slices.Concat(remove(stale), add(elements)) }
	ready, err := whole(c)
	if err != nil {
		return err
	}
	if ready {
		err = nft.Commit(namespace(c), changes()...)
	}
	if !ready || errors.Is(err, unix.ENOENT) { // the last port may just have gone, with the table
		err = unsupported(nft.Commit(namespace(c), append(define(), changes()...)...))
	}
	if err != nil {
		return fmt.Errorf("guard port %q: %w", port, err)
	}
	return nil
}

func staleOf(c *rtnl.Conn, port string) (stale []element, err error) {
	there, err := guarded(c, port)
	if there {
		stale, _, err = elementsOf(c, []string{port})
	}
	return stale, err
}

// Possible asks the kernel whether it could make the rules: ErrUnsupported. It
// changes nothing.
func Possible(c *rtnl.Conn) error { return unsupported(nft.Try(namespace(c), define()...)) }

func unsupported(err error) error {
	if nft.Missing(err) {
		err = fmt.Errorf("%w: nftables of the bridge family: %w", ErrUnsupported, err)
	}
	return err
}

// Admit is Close for a port that Close has been called for: it only adds, all of the
// port and in one transaction, and asks the kernel nothing before. Should somebody have
// flushed the table meanwhile, it is Close.
func Admit(c *rtnl.Conn, port string, guest mac.Addr, list string) error {
	elements, err := elementsFor(port, guest, list)
	if err == nil {
		err = nft.Commit(namespace(c), add(elements)...)
	}
	if errors.Is(err, unix.ENOENT) {
		return Close(c, port, guest, list)
	}
	if err != nil {
		return fmt.Errorf("admit addresses of port %q: %w", port, err)
	}
	return nil
}

// elementsFor are all of a port.
func elementsFor(port string, guest mac.Addr, list string) ([]element, error) {
	elements := []element{{ports, name(port)}, {macs, name(port) + string(guest[:]) + "\x00\x00"}}
	for _, word := range strings.Fields(list) {
		a, err := netip.ParseAddr(word)
		if err != nil {
			return nil, err
		}
		set := ipv6
		if a.Is4() {
			set = ipv4
		}
		elements = append(elements, element{set, name(port) + string(a.AsSlice())})
	}
	return elements, nil
}

// Remove forgets ports: one that is there may speak as anybody from then on.
// Nothing is left behind the last of all.
func Remove(c *rtnl.Conn, names ...string) error {
	const together = 100 // ports in a transaction, whose size the socket limits
	for some := range slices.Chunk(names, together) {
		if err := removeSome(c, some); err != nil {
			return fmt.Errorf("remove the guard of %q: %w", some, err)
		}
	}
	return nil
}

// removeSome begins again when somebody else has changed something meanwhile.
func removeSome(c *rtnl.Conn, names []string) error {
	const attempts = 10
	for range attempts {
		if err := removeOnce(c, names); !nft.Refused(err, unix.ENOENT) && !nft.Refused(err, unix.ERESTART) {
			return err
		}
	}
	return fmt.Errorf("changed by others %d times: %w", attempts, unix.EBUSY)
}

// removeOnce takes the table away in the transaction in which the last port goes,
// so that nobody who is killed leaves it. The kernel does not count elements
// that go in the same transaction, so sets must be removed with all that is in
// them; hence only if nothing has changed since they were read. Where a chain or set of
// ours is missing, because another version or somebody has made the table so, it is
// made for that.
func removeOnce(c *rtnl.Conn, names []string) error {
	if len(names) == 1 { // one request is enough where there is nothing to do
		if there, err := guarded(c, names[0]); err != nil || !there {
			return err
		}
	}
	generation, err := nft.Generation(namespace(c))
	if err != nil {
		return err
	}
	mine, others, err := elementsOf(c, names)
	if err != nil || len(mine) == 0 {
		return err
	}
	if !others {
		err := nft.CommitSince(namespace(c), generation, undefine()...)
		if nft.Refused(err, unix.ENOENT) {
			err = nft.CommitSince(namespace(c), generation, append(define(), undefine()...)...)
		}
		if theirs := nft.Refused(err, unix.EBUSY); !theirs { // no chain or set of somebody's own is in it
			return err
		}
	}
	return nft.Commit(namespace(c), remove(mine)...)
}

// Ports are the names of those that are guarded.
func Ports(c *rtnl.Conn) (names []string, err error) {
	found, err := elements(c, ports)
	for _, e := range found {
		names = append(names, e.port())
	}
	return names, err
}

// elementsOf are those of some ports, and whether there are others.
func elementsOf(c *rtnl.Conn, names []string) (mine []element, others bool, err error) {
	for _, s := range sets {
		found, err := elements(c, s.name)
		if err != nil {
			return nil, false, err
		}
		for _, e := range found {
			if slices.Contains(names, e.port()) {
				mine = append(mine, e)
			} else {
				others = true
			}
		}
	}
	return mine, others, nil
}

func guarded(c *rtnl.Conn, port string) (bool, error) {
	key := nft.Nest(unix.NFTA_SET_ELEM_KEY, nl.NewRtAttr(unix.NFTA_DATA_VALUE, []byte(name(port))))
	_, err := nft.Get(namespace(c), request(unix.NFT_MSG_GETSETELEM, 0, inSet(ports, nft.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, nft.Nest(unix.NFTA_LIST_ELEM, key)))...))
	if nft.Missing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the guard of port %q: %w", port, err)
	}
	return true, nil
}

// elements are those of one set; none when there is no such set.
func elements(c *rtnl.Conn, set string) (all []element, err error) {
	messages, err := nft.Get(namespace(c), request(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, inSet(set)...))
	if nft.Missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list guarded ports: %w", err)
	}
	for _, m := range messages {
		found, err := elementsIn(set, m)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// name is that of a port as the beginning of a key.
func name(port string) string { return port + strings.Repeat("\x00", nameSize-len(port)) }

func namespace(c *rtnl.Conn) netns.NsHandle { return netns.NsHandle(c.FD()) }
