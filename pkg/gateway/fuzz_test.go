package gateway

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Whatever answers for the kernel, and whatever comment others have written: a rule
// that is read as ours has a comment like those of ours.
func FuzzParseRule(f *testing.F) {
	f.Fuzz(func(t *testing.T, msg []byte) {
		attrs, err := rtnl.ParseAttributes(msg[min(nl.SizeofNfgenmsg, len(msg)):])
		if r, ours := ruleOf(attrs); err == nil && ours && len(strings.Split(r.comment(), " ")) != 3 {
			t.Errorf("%x is ours: %q", msg, r.comment())
		}
	})
}
