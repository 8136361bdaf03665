package bench

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
)

// promote does what the node agent does when the guest speaks.
func (s *station) promote() {
	s.Helper()
	s.onSite(func(site *attach.Site, p attach.Attached) {
		done, err := site.Promote(p)
		if s.must(err); !done {
			s.Fatal("promoted before")
		}
	})
}

// demote does nothing where the tap is in the pod.
func (s *station) demote() {
	s.Helper()
	s.onSite(func(site *attach.Site, p attach.Attached) { s.must(site.Demote(p)) })
}

func (s *station) onSite(f func(*attach.Site, attach.Attached)) {
	s.Helper()
	s.node.Do(func() {
		site, err := attach.OpenPod(s.pod.Path)
		s.must(err)
		defer site.Close()
		p, there, err := site.Named(s.PortName())
		if s.must(err); !there {
			s.Fatalf("port %q is missing", s.PortName())
		}
		f(site, p)
	})
}

// pace is the time between two frames of a stream that is interrupted.
const pace = 200 * time.Microsecond

// longestGap sends frames at a steady pace while f is under way and a little longer,
// and returns how long none arrived.
func longestGap(from, to int, frame []byte, f func()) time.Duration {
	var stop atomic.Bool
	done := make(chan time.Duration)
	go func() { done <- watch(to, len(frame), &stop) }()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for !stop.Load() {
			_, _ = unix.Write(from, frame) // while the tap is down: EIO
			time.Sleep(pace)
		}
	}()
	time.Sleep(20 * time.Millisecond)
	f()
	time.Sleep(20 * time.Millisecond)
	stop.Store(true)
	<-ended
	return <-done
}

// watch returns the longest time between two frames of that size.
func watch(fd, size int, stop *atomic.Bool) (longest time.Duration) {
	buf := make([]byte, 1<<12)
	var last time.Time
	for !stop.Load() {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 2)
		for {
			n, err := unix.Read(fd, buf)
			if err != nil {
				break
			}
			if n != size {
				continue
			}
			now := time.Now()
			if !last.IsZero() {
				longest = max(longest, now.Sub(last))
			}
			last = now
		}
	}
	return longest
}

// tellSwitching is how long nothing passes when a tap is promoted, or put back while
// its VMM goes on.
func tellSwitching(t *testing.T, e extent, r *report) {
	n := newNode(t, 0)
	guest, other := asMade, hostTap
	guest.promote = true
	a, b := guest.station(n, 1), other.station(n, 2)
	a.Promote = false // open leaves it in the pod
	from, to := a.open(false), b.open(false)
	defer unix.Close(from)
	defer unix.Close(to)
	out := nstest.Frame(b.Guest.HardwareAddr(), a.Guest.HardwareAddr(), 60, "to the other")
	in := nstest.Frame(a.Guest.HardwareAddr(), b.Guest.HardwareAddr(), 60, "from the other")
	nstest.WaitForwarding(t, n.NS, b.PortName())
	var nothing, up, down [2]sample
	for range e.streams * 3 {
		for i, way := range []struct {
			from, to int
			frame    []byte
		}{{from, to, out}, {to, from, in}} {
			nothing[i].took(longestGap(way.from, way.to, way.frame, func() { time.Sleep(20 * time.Millisecond) }))
			up[i].took(longestGap(way.from, way.to, way.frame, a.promote))
			down[i].took(longestGap(way.from, way.to, way.frame, a.demote))
		}
	}
	r.text("Promoting a tap interrupts the guest once. The longest time without a frame, in milliseconds, of a stream of one every %v:", pace)
	r.table([][]string{
		{"ms", "from the guest", "to the guest"},
		{"nothing happens", nothing[0].String(), nothing[1].String()},
		{"promoted", up[0].String(), up[1].String()},
		{"put back, the VMM goes on", down[0].String(), down[1].String()},
	}...)
	r.promise("ms without a frame when a tap is promoted", max(up[0].median(), up[1].median()), "≤", 20)
}
