package nstest

import (
	"bytes"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// twoTaps is a bridge with an open tap at either side.
func twoTaps(t *testing.T) (ns *NS, a, b *Wire) {
	t.Helper()
	ns = New(t)
	Bridge(t, ns, "br0", bridgeMAC)
	tapOn(t, ns, "tapA")
	tapOn(t, ns, "tapB")
	a, b = OpenTap(t, ns, "tapA"), OpenTap(t, ns, "tapB")
	WaitForwarding(t, ns, "tapA")
	WaitForwarding(t, ns, "tapB")
	return ns, a, b
}

func TestCount(t *testing.T) {
	t.Parallel()
	ns, a, b := twoTaps(t)
	for _, size := range []int{0, 60, 1514} {
		if got := Count(t, a, b, Frame(macB, macA, size, "ping"), 10); got != 10 {
			t.Errorf("%d bytes: %d of 10 arrived", size, got)
		}
	}
	if got := Count(t, a, a, Frame(macB, macA, 0, "ping"), 10); got != 0 {
		t.Errorf("%d of 10 came back", got)
	}
	ip(t, ns, "bridge link set dev tapA isolated on\n bridge link set dev tapB isolated on")
	if got := Count(t, a, b, Frame(macB, macA, 0, "ping"), 10); got != 0 {
		t.Errorf("%d of 10 arrived though both ports are isolated", got)
	}
	ip(t, ns, "ip link set tapA down")
	if got := Count(t, a, b, Frame(macB, macA, 0, "ping"), 10); got != 0 {
		t.Errorf("%d of 10 arrived though the sender's link is down", got)
	}
}

func TestCountJumbo(t *testing.T) {
	t.Parallel()
	ns, a, b := twoTaps(t)
	ip(t, ns, "ip link set tapA mtu 9000\n ip link set tapB mtu 9000\n ip link set br0 mtu 9000")
	if got := Count(t, a, b, Frame(macB, macA, 9014, "big"), 10); got != 10 {
		t.Errorf("%d of 10 arrived", got)
	}
	if got := Count(t, a, b, Frame(macB, macA, 9100, "too big"), 3); got != 0 {
		t.Errorf("%d of 3 arrived though larger than the MTU", got)
	}
}

func TestMultiQueue(t *testing.T) {
	t.Parallel()
	ns := New(t)
	ip(t, ns, "ip tuntap add mq mode tap multi_queue\n ip link set mq up")
	OpenTap(t, ns, "mq", unix.IFF_MULTI_QUEUE)
	OpenTap(t, ns, "mq", unix.IFF_MULTI_QUEUE)
	if world := World(ns); !strings.Contains(world, "numqueues 2\n") {
		t.Errorf("no two queues in\n%s", world)
	}
}

func TestOpenTapNeverCreates(t *testing.T) {
	t.Parallel()
	ns := New(t)
	v, done := &verdict{TB: t}, make(chan struct{})
	go func() {
		defer close(done)
		OpenTap(v, ns, "absent")
	}()
	<-done
	if _, err := ns.Handle().LinkByName("absent"); err == nil || v.ended != "failed" {
		t.Errorf("opening a tap that is not there: test %s, link: %v", v.ended, err)
	}
}

func TestOpenLink(t *testing.T) {
	t.Parallel()
	host, far := New(t), New(t)
	Bridge(t, host, "br0", bridgeMAC)
	Veth(t, host, "uplink", far, "eth0")
	ip(t, host, "ip link set uplink master br0")
	tapOn(t, host, "tap0")
	guest, peer := OpenTap(t, host, "tap0"), OpenLink(t, far, "eth0")
	WaitForwarding(t, host, "tap0")
	WaitForwarding(t, host, "uplink")

	if got := Count(t, guest, peer, Frame(macB, macA, 0, "out"), 10); got != 10 {
		t.Errorf("%d of 10 arrived at the uplink's far end", got)
	}
	if got := Count(t, peer, guest, Frame(macA, macB, 1514, "in"), 10); got != 10 {
		t.Errorf("%d of 10 arrived at the guest", got)
	}
	if got := peer.Received(fromB); got != 0 {
		t.Errorf("a packet socket saw %d frames of its own", got)
	}
}

func fromB(frame []byte) bool { return bytes.Equal(frame[6:12], macB) }

func TestWireSurvivesLinkDown(t *testing.T) {
	t.Parallel()
	a, b := New(t), New(t)
	Veth(t, a, "v", b, "v")
	from, to := OpenLink(t, a, "v"), OpenLink(t, b, "v")
	ip(t, b, "ip link set v down")
	if got := Count(t, from, to, Frame(macB, macA, 0, ""), 3); got != 0 {
		t.Errorf("%d of 3 arrived at a link that is down", got)
	}
	ip(t, b, "ip link set v up")
	eventually(t, "the wire carries again", func() bool {
		return Count(t, from, to, Frame(macB, macA, 0, ""), 1) == 1
	})
}

func TestWireKeepsFrames(t *testing.T) {
	t.Parallel()
	_, a, b := twoTaps(t)
	want := Frame(macB, macA, 100, "one")
	a.Send(want)
	eventually(t, "the frame arrives", func() bool { return b.Received(nil) == 1 })
	if diff := cmp.Diff([][]byte{want}, b.Frames()); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
	if b.Reset(); b.Received(nil) != 0 {
		t.Error("frames are left after Reset")
	}
	a.Close()
	a.Close()
}

// TestCloseReleases while other goroutines fork: their children hold copies of
// the wire's descriptor for a moment.
func TestCloseReleases(t *testing.T) {
	t.Parallel()
	ns, stop := New(t), make(chan struct{})
	ip(t, ns, "ip tuntap add tap1 mode tap\n ip tuntap add tapN mode tap multi_queue\n ip link set lo up")
	var forks sync.WaitGroup
	defer forks.Wait()
	defer close(stop)
	for range 4 {
		forks.Go(func() { forkUntil(stop) })
	}
	for range 50 {
		OpenTap(t, ns, "tap1").Close()
		OpenTap(t, ns, "tap1").Close()
		OpenTap(t, ns, "tapN", unix.IFF_MULTI_QUEUE)
		OpenTap(t, ns, "tapN", unix.IFF_MULTI_QUEUE).Close()
		OpenLink(t, ns, "lo").Close()
		if link, err := ns.Handle().LinkByName("lo"); err != nil || link.Attrs().Promisc != 0 {
			t.Fatalf("lo is promiscuous after Close: %v", err)
		}
	}
}

func forkUntil(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
			_ = exec.Command("true").Run()
		}
	}
}
