package guard

import (
	"net/netip"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

func TestScratch(t *testing.T) {
	ns := nstest.New(t)
	guest := mac.Addr{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	list := List(guest, []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")})
	t.Log(list)
	ns.Do(func() {
		c, err := rtnl.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := Close(c, "tb0123456789ab", guest); err != nil {
			t.Fatal(err)
		}
		if err := Admit(c, "tb0123456789ab", list); err != nil {
			t.Fatal(err)
		}
		if err := Close(c, "tb0123456789ac", guest); err != nil {
			t.Fatal(err)
		}
		t.Log(ns.Run(t, "nft", "list", "ruleset"))
		t.Log(Observe(c))
		if err := Remove(c, "tb0123456789ab"); err != nil {
			t.Fatal(err)
		}
		t.Log(Observe(c))
		if err := Remove(c, "tb0123456789ac"); err != nil {
			t.Fatal(err)
		}
		t.Log("left:", ns.Run(t, "nft", "list", "ruleset"))
	})
}
