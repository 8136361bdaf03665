package attach_test

import (
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// benchSite is a node with a bridge and a pod, for as long as f runs.
func benchSite(b *testing.B, mode port.Mode, f func(*attach.Site, port.Attachment, bridge.Bridge)) {
	b.Helper()
	n, pod := lanBare(b), nstest.New(b)
	nstest.Bridge(b, n.NS, lanBridge, lanBridgeMAC)
	a := n.plan(mode, port.Sticky)
	n.Do(func() {
		s, err := attach.OpenPod(pod.Path)
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		br, err := bridge.Find(s.Host(), lanBridge)
		if err != nil {
			b.Fatal(err)
		}
		a.MTU, a.PortMTU = br.MTU, br.MTU
		f(s, a, br)
	})
}

func benchModes(b *testing.B, f func(*testing.B, port.Mode)) {
	b.Helper()
	for _, mode := range port.Modes {
		b.Run(string(mode), func(b *testing.B) { f(b, mode) })
	}
}

// BenchmarkApply is ADD without the process around it, its verification included.
func BenchmarkApply(b *testing.B) {
	benchModes(b, func(b *testing.B, mode port.Mode) {
		benchSite(b, mode, func(s *attach.Site, a port.Attachment, br bridge.Bridge) {
			for b.Loop() {
				if err := s.Apply(a, br); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Remove(a.ID); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	})
}

func BenchmarkRemove(b *testing.B) {
	benchModes(b, func(b *testing.B, mode port.Mode) {
		benchSite(b, mode, func(s *attach.Site, a port.Attachment, br bridge.Bridge) {
			for b.Loop() {
				b.StopTimer()
				if err := s.Apply(a, br); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := s.Remove(a.ID); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkObserve is what CHECK looks at.
func BenchmarkObserve(b *testing.B) {
	benchModes(b, func(b *testing.B, mode port.Mode) {
		benchSite(b, mode, func(s *attach.Site, a port.Attachment, br bridge.Bridge) {
			if err := s.Apply(a, br); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := s.Observe(a.Want()); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}
