package shape

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

// What was set is what is seen, also where the kernel's own words for it are
// rounded or too short.
func TestQueue(t *testing.T) {
	ns := nstest.New(t)
	ns.Do(func() {
		c, err := rtnl.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		index, err := AddIFB(c, "ifb9", mac.Addr{2, 0, 0, 0, 0, 9}, 1500, rtnl.Mark{Group: 7, Alias: "of a test"})
		if err != nil {
			t.Fatal(err)
		}
		for _, limit := range []Limit{
			{},
			{Rate: 1, Burst: 1518},
			{Rate: 125000, Burst: math.MaxUint32 / 8}, // 72 minutes: what kubelet asks for beside 1 Mbit/s
			{Rate: 2500000, Burst: 1518},
			{Rate: 12499999, Burst: math.MaxUint32},
			{Rate: 1 << 32, Burst: 65536},
			{Rate: 1e12 / 8, Burst: math.MaxUint32},
		} {
			want := limit.Queue()
			if err := want.Set(c, index); err != nil {
				t.Fatal(err)
			}
			got, err := observe(c, want)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s (-want +got):\n%s%v", want, diff, err)
			}
		}
	})
}

func observe(c *rtnl.Conn, want Queue) (Queue, error) {
	l, err := c.LinkNamed("ifb9")
	if err != nil {
		return Queue{}, err
	}
	return Observe(c, l, want)
}

func TestOtherQueuesAreSeen(t *testing.T) {
	ns := nstest.New(t)
	ns.Run(t, "ip", "link", "add", "ifb9", "type", "ifb")
	want := Limit{Rate: 125000, Burst: 20000}.Queue()
	for _, c := range []struct{ change, want string }{
		{"", "noop"}, // never up
		{"pfifo", "pfifo"},
		{"tbf rate 1mbit burst 20001 limit 131072", "tbf of 1000000 bit/s, burst 160008 bit, backlog 131072 bytes"},
		{"tbf rate 1mbit burst 20000 limit 131072", want.String()},
	} {
		if c.change != "" {
			ns.Run(t, "sh", "-c", "tc qdisc replace dev ifb9 root "+c.change)
		}
		ns.Do(func() {
			conn, err := rtnl.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			got, err := observe(conn, want)
			if err != nil || got.String() != c.want {
				t.Errorf("after %q: %q, %v; want %q", c.change, got, err, c.want)
			}
		})
	}
}
