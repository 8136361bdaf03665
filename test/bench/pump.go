package bench

import (
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// side is what one end of a path has done.
type side struct {
	frames int
	bytes  int
	cpu    time.Duration // of its thread, in which the kernel's share is
	took   time.Duration
}

// rate is in frames per second.
func (s side) rate() float64 { return float64(s.frames) / s.took.Seconds() }

// cost is in nanoseconds of processor time per frame.
func (s side) cost() float64 { return float64(s.cpu.Nanoseconds()) / float64(max(s.frames, 1)) }

// pump sends copies of a frame into one tap for a time, and meanwhile takes what
// comes out of the other.
func pump(from, to int, frame []byte, d time.Duration) (sent, received side) {
	var stop atomic.Bool
	done := make(chan side)
	go func() { done <- receive(to, len(frame), &stop) }()
	sent = send(from, frame, d)
	time.Sleep(5 * time.Millisecond) // what is still on its way
	stop.Store(true)
	received = <-done
	received.took = sent.took
	return sent, received
}

// send writes as fast as the kernel takes frames.
func send(fd int, frame []byte, d time.Duration) (s side) {
	defer onThread(&s)()
	const between = 64 // looks at the clock
	begin := time.Now()
	for s.took < d {
		for range between {
			if _, err := unix.Write(fd, frame); err == nil {
				s.frames++
				s.bytes += len(frame)
			}
		}
		s.took = time.Since(begin)
	}
	return s
}

// receive reads until it is told to stop, and counts frames of that size.
func receive(fd, size int, stop *atomic.Bool) (s side) {
	defer onThread(&s)()
	buf := make([]byte, 1<<17)
	for !stop.Load() {
		const patience = 2 // ms
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience)
		for {
			n, err := unix.Read(fd, buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				break
			}
			if n == size {
				s.frames++
				s.bytes += n
			}
		}
	}
	return s
}

// onThread keeps the caller on one thread, until it calls what this returns: then
// the thread's processor time is in s.
func onThread(s *side) func() {
	runtime.LockOSThread()
	before := threadTime()
	return func() {
		s.cpu = threadTime() - before
		runtime.UnlockOSThread()
	}
}

func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // every kernel has it
	return time.Duration(t.Nano())
}
