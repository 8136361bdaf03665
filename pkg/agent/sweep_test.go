package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

const grace = 5 * time.Minute

// swept calls f with a keeper that has seen the node's ports, and with a function that
// gives it the runtime's answer at a time after the first.
func (n *node) swept(o Options, f func(answer func(after time.Duration, err error, ids ...string) map[string]float64)) {
	n.Helper()
	n.site(func(s *attach.Site) {
		r := prometheus.NewRegistry()
		o.Interval, o.SweepAfter, o.Log, o.Metrics = time.Hour, grace, slog.New(slog.NewJSONHandler(n.log, nil)), NewMetrics(r)
		k := newKeeper(s, o)
		k.compareAll(true)
		begin := time.Now()
		f(func(after time.Duration, err error, ids ...string) map[string]float64 {
			k.sweep(sandboxes{ids, err}, begin.Add(after))
			return told(n.T, r)
		})
	})
}

// The alert TapbridgeRuntimeSilent wants more than five errors in 15 minutes, however long
// the grace period is; asking takes up to ten seconds.
func TestRuntimeIsAskedOftenEnough(t *testing.T) {
	for _, after := range []time.Duration{time.Second, grace, 15 * time.Minute, 24 * time.Hour} {
		if pause := pauseBetween(after); pause > after/5 || 6*(pause+10*time.Second) > 15*time.Minute {
			t.Errorf("sweep after %v: asked every %v", after, pause)
		}
	}
}

// A port goes when the runtime has not known its sandbox for the grace period, and
// nothing else goes. The world is then as if DEL had been called.
func TestSweep(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		empty := n.world()
		n.apply(a)
		n.swept(Options{}, func(answer func(time.Duration, error, ...string) map[string]float64) {
			answer(0, nil, "other", a.ContainerID)
			if now := answer(time.Minute, nil, "other"); now["stray_ports{}"] != 1 {
				n.Errorf("a stray is not told: %v", now)
			}
			answer(grace, nil, "other") // not since a minute after the beginning
			if len(n.wrong(a)) > 0 || len(n.log.with("swept")) > 0 {
				n.Fatal("swept within the grace period")
			}
			now := answer(grace+time.Minute, nil)
			if now["sweeps_total{}"] != 1 || now["stray_ports{}"] != 0 || len(n.log.with("swept")) != 1 {
				n.Errorf("%v, log:\n%s", now, n.log)
			}
		})
		if diff := nstest.Diff(empty, n.world()); diff != "" {
			n.Errorf("left:\n%s", diff)
		}
	})
}

// While the runtime cannot be asked nothing goes, and afterwards the period begins
// anew.
func TestNoAnswerNoSweep(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Tap)
	n.apply(a)
	n.swept(Options{}, func(answer func(time.Duration, error, ...string) map[string]float64) {
		answer(0, nil)
		answer(grace-time.Second, errors.New("connection refused"))
		now := answer(grace, errors.New("connection refused"))
		if now["runtime_errors_total{}"] != 2 || len(n.log.with("the runtime cannot be asked")) != 1 {
			t.Errorf("%v, log:\n%s", now, n.log)
		}
		answer(grace+time.Second, nil)
		answer(2*grace, nil)
		if len(n.wrong(a)) > 0 {
			t.Fatal("swept")
		}
		answer(2*grace+time.Second, nil)
	})
	if len(n.log.with("swept")) != 1 {
		t.Errorf("not swept in the end:\n%s", n.log)
	}
}

// The runtime's word alone ends no pod: what is in use stays, and is told once.
func TestInUseIsNotSwept(t *testing.T) {
	for what, use := range map[string]struct {
		mode port.Mode
		by   func(*node, port.Attachment)
	}{
		"a process in the pod": {port.Veth, func(n *node, _ port.Attachment) {
			sleep := n.pod.Command("sleep", "60")
			if err := sleep.Start(); err != nil {
				n.Fatal(err)
			}
			n.Cleanup(func() {
				_ = sleep.Process.Kill()
				_ = sleep.Wait() // killed
			})
		}},
		"a thread in the pod": {port.Veth, func(n *node, _ port.Attachment) {
			there, end := make(chan bool, 2), make(chan bool)
			for range 2 { // one of them is not the main thread
				go n.pod.Do(func() {
					if unix.Gettid() != unix.Getpid() {
						there <- true
						<-end
					}
				})
			}
			<-there
			n.Cleanup(func() { close(end) })
		}},
		"a VMM elsewhere that has the pod's tap": {port.Tap, func(n *node, a port.Attachment) { nstest.OpenTap(n.T, n.pod, a.TapName()) }},
		"a VMM that has the port":                {port.HostTap, func(n *node, a port.Attachment) { nstest.OpenTap(n.T, n.host, a.PortName()) }},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			n, a := newNode(t), wish(use.mode)
			n.apply(a)
			use.by(n, a)
			n.swept(Options{}, func(answer func(time.Duration, error, ...string) map[string]float64) {
				answer(0, nil)
				answer(grace, nil)
				if now := answer(2*grace, nil); now["sweeps_total{}"] != 0 || now["stray_ports{}"] != 1 {
					t.Error(now)
				}
			})
			if len(n.wrong(a)) > 0 || len(n.log.with("the runtime does not know its sandbox, but it is in use")) != 1 {
				t.Errorf("%v, log:\n%s", n.wrong(a), n.log)
			}
		})
	}
}

// Nor does a tap go that a VMM has open, where somebody has set it down.
func TestInUseAndDownIsNotSwept(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.HostTap)
	n.apply(a)
	vmm := nstest.OpenTap(t, n.host, a.PortName())
	defer vmm.Close()
	n.swept(Options{}, func(answer func(time.Duration, error, ...string) map[string]float64) {
		n.sh(n.host, named("ip link set PORT down", a))
		answer(0, nil)
		if now := answer(grace, nil); now["sweeps_total{}"] != 0 || now["stray_ports{}"] != 1 {
			t.Errorf("%v, log:\n%s", now, n.log)
		}
	})
}

// A container id that is too long for a record is known by its digest.
func TestLongIDIsKnown(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.HostTap)
	a.ContainerID = strings.Repeat("c", 200)
	n.apply(a)
	n.swept(Options{}, func(answer func(time.Duration, error, ...string) map[string]float64) {
		if now := answer(0, nil, "other", a.ContainerID); now["stray_ports{}"] != 0 {
			t.Error("it is taken for a stray")
		}
		if now := answer(0, nil, "other", a.ContainerID+"c"); now["stray_ports{}"] != 1 {
			t.Error("the id of another is taken for its")
		}
	})
}

func TestObserveOnlySweepsNothing(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Tap)
	n.apply(a)
	n.swept(Options{ObserveOnly: true}, func(answer func(time.Duration, error, ...string) map[string]float64) {
		answer(0, nil)
		answer(grace, nil)
		answer(2*grace, nil)
	})
	if len(n.wrong(a)) > 0 || len(n.log.with("the runtime does not know its sandbox")) != 1 {
		t.Errorf("log:\n%s", n.log)
	}
}

// The agent asks by itself; a runtime that hangs keeps it from nothing.
func TestRuntimeThatHangs(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Tap)
	n.apply(a)
	hang := make(chan bool)
	n.keepWith(Options{SweepAfter: time.Second, Sandboxes: func(ctx context.Context) ([]string, error) {
		select {
		case <-hang:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}})
	n.sh(n.host, named("bridge link set dev PORT learning on", a))
	n.awaitRepair(a, "learning")
	close(hang)
	n.await("sweep", func() bool { return len(n.log.with("swept")) == 1 })
}
