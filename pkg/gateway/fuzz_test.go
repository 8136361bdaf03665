package gateway

import (
	"testing"

	"github.com/vishvananda/netlink/nl"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Whatever answers for the kernel, and whatever comment others have written: a
// rule, or an error; and none without hashes is taken for ours.
func FuzzParseRule(f *testing.F) {
	o := Owner{Network: "lan", Port: "tb0123456789ab", IfName: "net1"}
	f.Fuzz(func(t *testing.T, msg []byte) {
		attrs, err := rtnl.ParseAttributes(msg[min(nl.SizeofNfgenmsg, len(msg)):])
		if r := ruleOf(attrs); err == nil && r.instance() == o.instance() && r.comment == "" {
			t.Errorf("%x is ours", msg)
		}
	})
}
