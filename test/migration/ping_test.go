package migration

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// pinger sends a hundred echo requests a second, and notes which are answered.
type pinger struct {
	socket *os.File
	stop   chan struct{}
	done   sync.WaitGroup

	mu   sync.Mutex
	sent []time.Time // by number
	took map[uint16]time.Duration
}

const pause = 10 * time.Millisecond

func startPinger(t *testing.T, ns *nstest.NS, to netip.Addr) *pinger {
	t.Helper()
	var fd int
	var err error
	ns.Do(func() {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP); err == nil {
			err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4()})
		}
	})
	must(t, err)
	p := &pinger{socket: os.NewFile(uintptr(fd), "ping"), stop: make(chan struct{}), took: map[uint16]time.Duration{}}
	p.done.Add(2)
	go p.send()
	go p.receive()
	t.Cleanup(func() { _ = p.socket.Close(); p.done.Wait() }) // an error: end has closed it
	return p
}

const echoID = 0x7b7b

func (p *pinger) send() {
	defer p.done.Done()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.stop:
			return
		}
		p.mu.Lock()
		number := uint16(len(p.sent))
		p.sent = append(p.sent, time.Now())
		p.mu.Unlock()
		if _, err := p.socket.Write(echoRequest(number)); err != nil && !isLoss(err) {
			return
		}
	}
}

// isLoss tells what the kernel says of an address that it cannot resolve, which is
// one more way not to be answered.
func isLoss(err error) bool {
	for _, e := range []error{unix.EHOSTUNREACH, unix.ENOBUFS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func echoRequest(number uint16) []byte {
	b := make([]byte, 64)
	b[0] = 8 // echo request
	binary.BigEndian.PutUint16(b[4:], echoID)
	binary.BigEndian.PutUint16(b[6:], number)
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum+sum>>16))
	return b
}

func (p *pinger) receive() {
	defer p.done.Done()
	b := make([]byte, 1500)
	for {
		n, err := p.socket.Read(b)
		if isLoss(err) {
			continue
		}
		if err != nil {
			return
		}
		const ip = 20 // without options
		if n < ip+8 || b[ip] != 0 || binary.BigEndian.Uint16(b[ip+4:]) != echoID {
			continue
		}
		p.answered(binary.BigEndian.Uint16(b[ip+6:]))
	}
}

func (p *pinger) answered(number uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, twice := p.took[number]; !twice && int(number) < len(p.sent) {
		p.took[number] = time.Since(p.sent[number])
	}
}

// counts are how many were sent and answered so far.
func (p *pinger) counts() (sent, answered int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sent), len(p.took)
}

// answeredLately reports whether one of the last requests was answered.
func (p *pinger) answeredLately() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for number := max(0, len(p.sent)-requests); number < len(p.sent); number++ {
		if _, answered := p.took[uint16(number)]; answered {
			return true
		}
	}
	return false
}

// end waits until nothing more is answered.
func (p *pinger) end() {
	close(p.stop)
	const nap, idleEnough = 10 * time.Millisecond, 100
	for idle, last := 0, -1; idle < idleEnough; idle++ {
		sent, answered := p.counts()
		if answered == sent {
			break
		}
		if answered != last {
			idle, last = 0, answered
		}
		time.Sleep(nap)
	}
	_ = p.socket.Close() // before the cleanup
	p.done.Wait()
}

// moves are the moments of a migration.
type moves struct {
	begin            time.Time // of what counts
	stopped, resumed time.Time // the VM
	left             time.Time // its VMM, the tap on the source
	found            time.Time // the first frame of the VM from the target has been heard, and with follow by the agents as well
}

// lost counts the requests without an answer, by when they were sent: before the VM
// stopped, while it stood still, and after. To that time belong those that were under
// way when it stopped, which is told by the others' answers, and those until the VM has
// been found. An answer that the VM gives where it
// goes to, to a request of long before, comes too late: its tap has kept it. Of those
// lost after that it also returns how long after.
func (p *pinger) lost(m moves) (lost [3]int, late []time.Duration) {
	var there, here time.Duration // the slowest answers
	for number, took := range p.took {
		if at := p.sent[number]; at.Add(took).Before(m.stopped) {
			there = max(there, took)
		} else if at.After(m.resumed) {
			here = max(here, took)
		}
	}
	for number, at := range p.sent {
		took, answered := p.took[uint16(number)]
		phase := 1
		switch {
		case at.Before(m.begin):
			continue
		case at.Before(m.stopped.Add(-there)):
			phase, answered = 0, answered && at.Add(took).Before(m.resumed)
		case at.After(m.found.Add(here)):
			phase = 2
		}
		if !answered {
			lost[phase]++
		}
		if !answered && phase == 2 {
			late = append(late, at.Sub(m.found))
		}
	}
	return lost, late
}
