package gateway

import (
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nft"
	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Whatever answers for the kernel, and whatever comment others have written: a rule
// that is read as ours is for a guest's address, and is of this version only with the
// comment that it would be given.
func FuzzParseRule(f *testing.F) {
	f.Fuzz(func(t *testing.T, msg []byte) {
		attrs, err := rtnl.ParseAttributes(msg[min(nl.SizeofNfgenmsg, len(msg)):])
		r, ours := ruleOf(attrs)
		if err != nil || !ours {
			return
		}
		if said := nft.CommentIn(attrs.Get(unix.NFTA_RULE_USERDATA)); !r.guest.IsValid() || r.current != (said == r.comment()) {
			t.Errorf("%q is ours, for %v, current is %v", said, r.guest, r.current)
		}
	})
}
