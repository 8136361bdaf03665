package redirect_test

import (
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/redirect"
)

// BenchmarkConnect is what the redirect of mode tap costs an ADD, by either way.
func BenchmarkConnect(b *testing.B) {
	byMirred := func(c *rtnl.Conn, tap, inner int) error {
		if err := redirect.Pass(c, tap, inner); err != nil {
			return err
		}
		return redirect.Pass(c, inner, tap)
	}
	for name, connect := range map[string]func(c *rtnl.Conn, tap, inner int) error{"bpf": redirect.Connect, "mirred": byMirred} {
		b.Run(name, func(b *testing.B) {
			ns, c := pod(b)
			for b.Loop() {
				if err := connect(c, index(b, c, "tap1"), index(b, c, "net1")); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				for _, name := range []string{"tap1", "net1"} {
					ns.Run(b, "tc", "qdisc", "del", "dev", name, "ingress")
				}
				b.StartTimer()
			}
		})
	}
}

// pod is a namespace with a tap1 and a net1.
func pod(t testing.TB) (*nstest.NS, *rtnl.Conn) {
	t.Helper()
	ns := nstest.New(t)
	nstest.Veth(t, ns, "tap1", nstest.New(t), "x")
	nstest.Veth(t, ns, "net1", nstest.New(t), "x")
	c, err := rtnl.OpenAt(ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return ns, c
}

func index(t testing.TB, c *rtnl.Conn, name string) int {
	t.Helper()
	l, err := c.LinkNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Index
}
