package guest

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

func findTools(t *testing.T) Tools {
	t.Helper()
	if testing.Short() || os.Getenv("TAPBRIDGE_TEST_QEMU") != "1" {
		nstest.Skip(t, "QEMU guests, and the Debian packages they need, are for TAPBRIDGE_TEST_QEMU=1 without -short")
	}
	cache, err := os.UserCacheDir()
	must(t, err)
	tools, err := FindTools(t.Context(), filepath.Join(cache, "tapbridge"), t.Logf)
	must(t, err)
	return tools
}

func TestQEMU(t *testing.T) {
	tools := findTools(t)
	l := newLAN(t)
	nicQ, nicN := l.nic(), l.nic()
	nicQ.MTU = 1400
	start := time.Now()
	q, err := QEMU(within(t, time.Minute), nicQ, tools)
	must(t, err)
	t.Cleanup(func() { _ = q.Close() })
	t.Logf("booted in %v", time.Since(start))
	n := plugIn(t, nicN)

	requirePing(t, q, nicN)
	requirePing(t, n, nicQ)
	must(t, n.Serve(7000))
	must(t, q.Serve(7000))
	requireTransfer(t, q, nicN, 0)
	requireTransfer(t, q, nicN, 4<<20+1)
	requireTransfer(t, n, nicQ, 16<<20)
	if err := q.Serve(7000); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("served a port twice: %v", err)
	}
	r, err := q.(*qemu).console.run(t.Context(), "cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address")
	if want := "1400\n" + nicQ.MAC.String(); err != nil || r.said != want {
		t.Errorf("the guest's card: got %q, %v, want %q", r.said, err, want)
	}

	requireQEMUInterrupted(t, q, l.addr(99).Addr())
	requirePing(t, q, nicN)
	must(t, q.Close())
	must(t, q.Close())
	if err := q.(*qemu).cmd.Process.Signal(os.Kill); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("QEMU after Close: %v", err)
	}
	if _, err := q.Ping(t.Context(), nicN.Addr.Addr(), 1); err == nil {
		t.Error("a closed guest pings")
	}
	requirePing(t, plugIn(t, nicQ), nicN)
}

// requireQEMUInterrupted holds that the guest's shell is free again when the caller gives up.
func requireQEMUInterrupted(t *testing.T, q Guest, nobody netip.Addr) {
	t.Helper()
	p, err := q.Ping(within(t, 20*time.Second), nobody, 1)
	if err != nil || p.Sent != 1 || p.Received != 0 {
		t.Errorf("ping to nobody: got %+v, %v, want one request, no answer and no error", p, err)
	}
	for range 5 {
		ctx := within(t, 50*time.Millisecond)
		if _, err := q.Ping(ctx, nobody, 1000); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ping with little time: %v", err)
		}
	}
	if _, err := q.Transfer(within(t, 20*time.Second), netip.AddrPortFrom(nobody, 7000), 1); err == nil {
		t.Error("a transfer to nobody succeeded")
	}
}

func TestQEMUNoBoot(t *testing.T) {
	tools := findTools(t)
	l := newLAN(t)
	nic := l.nic()
	busy := plugIn(t, nic)
	if _, err := QEMU(t.Context(), nic, tools); err == nil || !strings.Contains(err.Error(), "Device or resource busy") {
		t.Errorf("on a tap in use: got error %v, want what QEMU said", err)
	}
	must(t, busy.Close())
	if _, err := QEMU(within(t, 100*time.Millisecond), nic, tools); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with little time: %v", err)
	}
	plugIn(t, nic) // and the tap is free
	tools.QEMU = "/nonexistent"
	if _, err := QEMU(t.Context(), nic, tools); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without QEMU: %v", err)
	}
}

func TestParsePing(t *testing.T) {
	said := `PING 10.50.0.2 (10.50.0.2): 56 data bytes
64 bytes from 10.50.0.2: seq=0 ttl=64 time=12.640 ms
64 bytes from 10.50.0.2: seq=0 ttl=64 time=12.700 ms (DUP!)
64 bytes from 10.50.0.2: seq=2 ttl=64 time=0.239 ms

--- 10.50.0.2 ping statistics ---
3 packets transmitted, 2 packets received, 1 duplicates, 33% packet loss
round-trip min/avg/max = 0.239/6.439/12.700 ms`
	got, err := parsePing(said)
	must(t, err)
	want := []time.Duration{12640 * time.Microsecond, 239 * time.Microsecond}
	if got.Sent != 3 || got.Received != 2 || !slices.Equal(got.RTTs, want) {
		t.Errorf("got %+v, want 3 sent, 2 received, %v", got, want)
	}
	if _, err := parsePing("ping: sendto: Network is unreachable"); err == nil {
		t.Error("no summary, but no error")
	}
}
