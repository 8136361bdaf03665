package guest

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// plugIn starts a guest in this process and closes it when the test ends.
func plugIn(t *testing.T, nic NIC) Guest {
	t.Helper()
	g, err := Netstack(t.Context(), nic)
	must(t, err)
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func TestNetstack(t *testing.T) {
	l := newLAN(t)
	nicA, nicB := l.nic(), l.nic()
	nicB.MTU = 1280 // the smaller one decides the size of the segments
	a, b := plugIn(t, nicA), plugIn(t, nicB)
	requirePing(t, a, nicB)
	requirePing(t, b, nicA)
	must(t, b.Serve(7000))
	requireTransfer(t, a, nicB, 0)
	requireTransfer(t, a, nicB, 16<<20)
	requireTransfer(t, a, nicB, 1<<20+1)
	if b.Serve(7000) == nil {
		t.Error("served a port twice")
	}
}

// TestNetstackOffloads transfers between guests with offloads and without, in either direction: whoever has none gets whole segments.
func TestNetstackOffloads(t *testing.T) {
	l := newLAN(t)
	nicA, nicB, nicC := l.nic(), l.nic(), l.nic()
	nicA.Offloads, nicB.Offloads = true, true
	a, b, c := plugIn(t, nicA), plugIn(t, nicB), plugIn(t, nicC)
	requirePing(t, a, nicB)
	for _, g := range []Guest{b, c} {
		must(t, g.Serve(7000))
	}
	requireTransfer(t, a, nicB, 16<<20)
	requireTransfer(t, a, nicC, 16<<20)
	requireTransfer(t, c, nicB, 16<<20)
}

func TestNetstackMTU(t *testing.T) {
	l := newLAN(t)
	nic := l.nic()
	nic.MTU = 1400
	g := plugIn(t, nic)
	if got := g.(*netstack).stack.NICInfo()[theNIC].MTU; got != 1400 {
		t.Errorf("the stack's MTU is %d, want 1400", got)
	}
}

// TestNetstackUnanswered holds that an address nobody has is a result, and a network it cannot reach an error.
func TestNetstackUnanswered(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	g := plugIn(t, l.nic())
	p, err := g.Ping(within(t, 20*time.Second), l.addr(99).Addr(), 1)
	if err != nil || p.Sent != 1 || p.Received != 0 {
		t.Errorf("ping to nobody: got %+v, %v, want one request, no answer and no error", p, err)
	}
	if p, err := g.Ping(t.Context(), netip.MustParseAddr("192.0.2.1"), 1); err == nil {
		t.Errorf("ping to another network: got %+v and no error", p)
	}
	ctx := within(t, 100*time.Millisecond)
	if _, err := g.Ping(ctx, l.addr(99).Addr(), 1); !errors.Is(err, ctx.Err()) {
		t.Errorf("ping with little time: got %v, want %v", err, ctx.Err())
	}
	ctx = within(t, 100*time.Millisecond)
	if _, err := g.Transfer(ctx, netip.AddrPortFrom(l.addr(99).Addr(), 7000), 1); !errors.Is(err, ctx.Err()) {
		t.Errorf("transfer with little time: got %v, want %v", err, ctx.Err())
	}
}

// TestNetstackFlooded is the reason for our own wire: a guest must survive a frame that is not for it.
func TestNetstackFlooded(t *testing.T) {
	l := newLAN(t)
	nicA, nicB := l.nic(), l.nic()
	a := plugIn(t, nicA)
	plugIn(t, nicB)
	stranger := l.addr(99).Addr()
	l.ip("neigh", "add", stranger.String(), "lladdr", "02:00:00:00:00:99", "dev", "br0")
	l.inside(func() error {
		conn, err := net.Dial("udp", netip.AddrPortFrom(stranger, 9).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte("flood"))
		return err
	})
	requirePing(t, a, nicB)
}

// TestNetstackAfterOffloads starts a guest on a tap whose last VMM negotiated offloads, and sends to it from the host's TCP, which
// would leave checksums to such a VMM.
func TestNetstackAfterOffloads(t *testing.T) {
	l := newLAN(t)
	nic := l.nic()
	vmm, err := openTap(nic)
	must(t, err)
	raw, err := vmm.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		must(t, unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4))
	}))
	must(t, vmm.Close())

	must(t, plugIn(t, nic).Serve(7000))
	l.inside(func() error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(nic.Addr.Addr(), 7000).String(), 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		must(t, second(io.CopyN(conn, zeros{}, 1<<20)))
		must(t, conn.(*net.TCPConn).CloseWrite())
		answer, err := io.ReadAll(conn)
		must(t, err)
		return checkAnswer(string(answer), 1<<20)
	})
}

func second[T any](_ T, err error) error { return err }

// TestNetstackClose closes both ends of a transfer that would take for ever.
func TestNetstackClose(t *testing.T) {
	l := newLAN(t)
	nicA, nicB := l.nic(), l.nic()
	must(t, plugIn(t, nicA).Close()) // whatever the first guest of a process leaves behind is not leaking
	before := resources()

	for _, closeServer := range []bool{true, false} {
		a, b := plugIn(t, nicA), plugIn(t, nicB)
		must(t, b.Serve(7000))
		requireTransfer(t, a, nicB, 1)
		ended := make(chan error)
		go func() {
			_, err := a.Transfer(t.Context(), netip.AddrPortFrom(nicB.Addr.Addr(), 7000), 1<<40)
			ended <- err
		}()
		time.Sleep(50 * time.Millisecond)
		first, then := a, b
		if closeServer {
			first, then = b, a
		}
		must(t, first.Close())
		select {
		case err := <-ended:
			if err == nil || !closeServer && !errors.Is(err, net.ErrClosed) {
				t.Errorf("closeServer %v: transfer ended with %v", closeServer, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("closeServer %v: transfer goes on", closeServer)
		}
		must(t, then.Close())
		must(t, then.Close())
		if _, err := a.Ping(t.Context(), nicB.Addr.Addr(), 1); !errors.Is(err, net.ErrClosed) {
			t.Errorf("ping of a closed guest: %v", err)
		}
	}

	deadline := time.Now().Add(10 * time.Second)
	for resources().exceed(before) && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if after := resources(); after.exceed(before) {
		buf := make([]byte, 1<<16)
		t.Errorf("%+v before, %+v after\n%s", before, after, buf[:runtime.Stack(buf, true)])
	}
}

type resource struct{ goroutines, files int }

func (r resource) exceed(other resource) bool {
	return r.goroutines > other.goroutines || r.files > other.files
}

func resources() resource {
	files, _ := os.ReadDir("/proc/self/fd")
	return resource{runtime.NumGoroutine(), len(files)}
}

func TestNetstackNoTap(t *testing.T) {
	l := newLAN(t)
	nic := l.nic()
	nic.Tap = "nosuchtap"
	_, err := Netstack(t.Context(), nic)
	if err == nil || !strings.Contains(err.Error(), `find tap "nosuchtap" in "`+l.netns) {
		t.Errorf("got error %v, want one that names the tap and the namespace", err)
	}
	nic.NetNS += "-gone"
	if _, err := Netstack(t.Context(), nic); err == nil || !strings.Contains(err.Error(), nic.NetNS) {
		t.Errorf("got error %v, want one that names the namespace", err)
	}
}
