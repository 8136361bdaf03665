package agent

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

// BenchmarkCompareAll compares 500 ports of mode tap, each in a pod of its own.
func BenchmarkCompareAll(b *testing.B) {
	host := nstest.New(b)
	nstest.Bridge(b, host, "br0", bridgeMAC)
	for i := range 500 {
		a := wish(port.Tap)
		a.ID = port.ID{ContainerID: "4f5c", IfName: "net" + string(rune('a'+i%26)) + string(rune('a'+i/26))}
		a.Guest, a.ToGuest, a.FromGuest = mac.Addr{0x52, 0x54, 0, 0, byte(i >> 8), byte(i)}, shape.Limit{}, shape.Limit{}
		pod := nstest.New(b)
		host.Do(func() { applyIn(b, pod, a) })
	}
	host.Do(func() {
		site, err := attach.Open()
		if err != nil {
			b.Fatal(err)
		}
		defer site.Close()
		k := newKeeper(site, Options{Interval: time.Hour, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		k.compareAll(true)
		for name, podsNow := range map[string]bool{"host": false, "both": true} {
			b.Run(name, func(b *testing.B) {
				before, n := cpu(b), 0.0
				for b.Loop() {
					k.compareAll(podsNow)
					n++
				}
				b.ReportMetric((cpu(b)-before).Seconds()*1000/n, "cpu-ms/op")
			})
		}
		if k.repairs > 0 || len(k.ports) != 500 {
			b.Errorf("%d repairs of %d ports", k.repairs, len(k.ports))
		}
	})
}

// cpu is what this process has used: the wall clock also counts what others use.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func applyIn(b *testing.B, pod *nstest.NS, a port.Attachment) {
	b.Helper()
	site, err := attach.OpenPod(pod.Path)
	if err != nil {
		b.Fatal(err)
	}
	defer site.Close()
	br, err := bridge.Find(site.Host(), a.Bridge)
	if err == nil {
		err = site.Apply(a, br)
	}
	if err != nil {
		b.Fatal(err)
	}
}
