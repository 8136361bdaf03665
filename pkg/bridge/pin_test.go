package bridge

import (
	"strconv"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

func inNamespace(t *testing.T, f func(ns *nstest.NS, c *rtnl.Conn)) {
	t.Helper()
	ns := nstest.New(t)
	ns.Do(func() {
		c, err := rtnl.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f(ns, c)
	})
}

func find(t *testing.T, c *rtnl.Conn, name string) Bridge {
	t.Helper()
	b, err := Find(c, name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// From before the first port joins until after the last has gone, however it
// goes, a bridge is what it was.
func TestPin(t *testing.T) {
	for name, commands := range map[string]string{
		"nothing set":         "ip link add br0 type bridge",
		"large from birth":    "ip link add br0 mtu 9000 type bridge",
		"only the MAC set":    "ip link add br0 mtu 9000 address 02:00:00:00:00:01 type bridge",
		"largest":             "ip link add br0 mtu 65535 type bridge",
		"no IPv6 below":       "ip link add br0 mtu 1280 type bridge",
		"higher than a port":  "ip link add br0 address fe:ff:00:00:00:01 type bridge",
		"had a port, and MTU": "ip link add br0 address 02:00:00:00:00:01 type bridge; ip link add d0 mtu 9000 type ifb; ip link set d0 master br0; ip link del d0; ip link set br0 mtu 4000",
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func(ns *nstest.NS, c *rtnl.Conn) {
				ns.Run(t, "sh", "-ec", commands+"; ip link set br0 up")
				before := find(t, c, "br0")
				for range 2 {
					port := mac.Addr{0xfe, 1, 0, 0, 0, 1}
					if err := find(t, c, "br0").Pin(c, port); err != nil {
						t.Fatal(err)
					}
					ns.Run(t, "ip", "link", "add", "v0", "address", port.String(), "mtu", strconv.Itoa(before.MTU), "type", "veth", "peer", "name", "v1")
					ns.Run(t, "ip", "link", "set", "v0", "master", "br0")
					same(t, "with a port", before, find(t, c, "br0"))
					ns.Run(t, "ip", "link", "del", "v1")
					same(t, "after it", before, find(t, c, "br0"))
				}
			})
		})
	}
}

func same(t *testing.T, when string, want, got Bridge) {
	t.Helper()
	if got.MAC != want.MAC || got.MTU != want.MTU {
		t.Errorf("%s the bridge has MAC %s and MTU %d, want %s and %d", when, got.MAC, got.MTU, want.MAC, want.MTU)
	}
}

// A bridge whose MTU follows its ports' keeps doing so.
func TestPinLeavesPortsTheirSay(t *testing.T) {
	inNamespace(t, func(ns *nstest.NS, c *rtnl.Conn) {
		ns.Run(t, "sh", "-ec", "ip link add br0 type bridge; ip link add d0 mtu 9000 type ifb; ip link set d0 master br0")
		if err := find(t, c, "br0").Pin(c, mac.Addr{0xfe, 1, 0, 0, 0, 1}); err != nil {
			t.Fatal(err)
		}
		ns.Run(t, "ip", "link", "set", "d0", "mtu", "4000")
		if got := find(t, c, "br0").MTU; got != 4000 {
			t.Errorf("the bridge has MTU %d, want its port's 4000", got)
		}
	})
}

// A Create that ends early leaves a bridge that is known as ours, and to be
// finished.
func TestUnfinished(t *testing.T) {
	inNamespace(t, func(ns *nstest.NS, c *rtnl.Conn) {
		want := Bridge{Name: "br1", MTU: 1500, MAC: random()}
		if err := add(c, want); err != nil {
			t.Fatal(err)
		}
		got := find(t, c, "br1")
		if !got.Made || !got.Unfinished() || got.Up || got.MTU != 1500 {
			t.Errorf("half-made it is %+v", got)
		}
		if err := Finish(c, got); err != nil {
			t.Fatal(err)
		}
		if got = find(t, c, "br1"); !got.Made || got.Unfinished() || !got.Up {
			t.Errorf("finished it is %+v", got)
		}
		ns.Run(t, "sh", "-ec", "ip link add d0 mtu 1400 type ifb; ip link set d0 master br1")
		same(t, "with a small port", got, find(t, c, "br1"))
		if show := ns.Run(t, "ip", "link", "show", "br1"); !strings.Contains(show, "group default") {
			t.Errorf("it keeps its group: %s", show)
		}
	})
}

// Somebody else's bridge of the name is not made ours.
func TestCreateMeetsAnother(t *testing.T) {
	inNamespace(t, func(ns *nstest.NS, c *rtnl.Conn) {
		ns.Run(t, "ip", "link", "add", "br1", "type", "bridge")
		before := find(t, c, "br1")
		if _, err := Create(c, Bridge{Name: "br1", MTU: 9000}); err == nil {
			t.Error("created what is there")
		}
		if got := find(t, c, "br1"); got != before {
			t.Errorf("it was %+v, is %+v", before, got)
		}
	})
}
