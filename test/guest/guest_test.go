package guest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// lan is a bridge in a namespace of its own, to plug guests into.
type lan struct {
	t     *testing.T
	name  string
	netns string
	taps  byte
}

var lans atomic.Int32

func newLAN(t *testing.T) *lan {
	t.Helper()
	if os.Geteuid() != 0 {
		nstest.Skip(t, "namespaces and taps need root")
	}
	l := &lan{t: t, name: fmt.Sprintf("guest%d-%d", os.Getpid(), lans.Add(1))}
	l.netns = "/run/netns/" + l.name
	run(t, "ip", "netns", "add", l.name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", l.name) })
	l.ip("link", "add", "br0", "type", "bridge")
	l.ip("addr", "add", l.host().String(), "dev", "br0")
	l.ip("link", "set", "br0", "up")
	return l
}

// nic makes a tap on the bridge and returns the card for a guest on it.
func (l *lan) nic() NIC {
	l.t.Helper()
	l.taps++
	tap := fmt.Sprintf("tap%d", l.taps)
	l.ip("tuntap", "add", tap, "mode", "tap")
	l.ip("link", "set", tap, "master", "br0", "up")
	return NIC{NetNS: l.netns, Tap: tap, MAC: net.HardwareAddr{2, 0, 0, 0, 0, l.taps}, Addr: l.addr(l.taps), MTU: 1500}
}

// host is the address of the bridge itself.
func (l *lan) host() netip.Prefix { return l.addr(254) }

func (l *lan) addr(n byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 50, 0, n}), 24)
}

// inside runs f where the bridge is.
func (l *lan) inside(f func() error) {
	l.t.Helper()
	if err := ns.WithNetNSPath(l.netns, func(ns.NetNS) error { return f() }); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lan) ip(args ...string) {
	l.t.Helper()
	run(l.t, "ip", append([]string{"-n", l.name}, args...)...)
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// requirePing pings five times and wants every answer.
func requirePing(t *testing.T, g Guest, dst NIC) {
	t.Helper()
	p, err := g.Ping(within(t, 20*time.Second), dst.Addr.Addr(), 5)
	must(t, err)
	t.Logf("ping %s: %d of %d, median %v", dst.Addr.Addr(), p.Received, p.Sent, p.Median())
	if p.Sent != 5 || p.Received != 5 || len(p.RTTs) != 5 {
		t.Errorf("got %+v, want 5 answers to 5 requests", p)
	}
}

// requireTransfer sends bytes to dst, which serves port 7000.
func requireTransfer(t *testing.T, g Guest, dst NIC, bytes int64) {
	t.Helper()
	got, err := g.Transfer(within(t, time.Minute), netip.AddrPortFrom(dst.Addr.Addr(), 7000), bytes)
	must(t, err)
	t.Logf("transfer to %s: %d bytes in %v, %.0f MB/s", dst.Addr.Addr(), got.Bytes, got.Took, float64(got.Bytes)/1e6/got.Took.Seconds())
	if got.Bytes != bytes || got.Took <= 0 {
		t.Errorf("got %+v, want %d bytes and a duration", got, bytes)
	}
}

func TestNICCheck(t *testing.T) {
	good := NIC{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Addr: netip.MustParsePrefix("10.50.0.1/24"), MTU: 1500}
	for name, test := range map[string]struct {
		change func(*NIC)
		want   string // part of the error
	}{
		"good":          {func(*NIC) {}, ""},
		"no MAC":        {func(n *NIC) { n.MAC = nil }, "MAC"},
		"multicast MAC": {func(n *NIC) { n.MAC = net.HardwareAddr{1, 0, 0, 0, 0, 1} }, "MAC"},
		"InfiniBand":    {func(n *NIC) { n.MAC = make(net.HardwareAddr, 20) }, "MAC"},
		"no address":    {func(n *NIC) { n.Addr = netip.Prefix{} }, "address"},
		"IPv6":          {func(n *NIC) { n.Addr = netip.MustParsePrefix("fd00::1/64") }, "IPv4"},
		"no MTU":        {func(n *NIC) { n.MTU = 0 }, "MTU 0"},
	} {
		t.Run(name, func(t *testing.T) {
			nic := good
			test.change(&nic)
			err := nic.check()
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one about %q", err, test.want)
			}
		})
	}
}

func TestCheckAnswer(t *testing.T) {
	for answer, want := range map[string]string{
		"12\n": "",
		"11\n": "sent 12 bytes, the server got 11",
		"":     `read the server's answer "": strconv.ParseInt: parsing "": invalid syntax`,
	} {
		got := ""
		if err := checkAnswer(answer, 12); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("answer %q: got error %q, want %q", answer, got, want)
		}
	}
}

func TestMedian(t *testing.T) {
	p := Ping{RTTs: []time.Duration{9, 1, 5}}
	if got := p.Median(); got != 5 {
		t.Errorf("median of %v is %v", p.RTTs, got)
	}
	if got := (Ping{}).Median(); got != 0 {
		t.Errorf("median of nothing is %v", got)
	}
}
