package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// crowdedBridge is a bridge with many guests, whose taps are open, and an uplink.
type crowdedBridge struct {
	t    *testing.T
	taps []int // descriptors
	far  *nstest.Wire
}

func crowdedBy(t *testing.T, table port.Table, guests int) *crowdedBridge {
	t.Helper()
	n, far := newNode(t, 0), nstest.New(t)
	nstest.Veth(t, n.NS, "up0", far, "down0")
	n.Run(t, "ip", "link", "set", "up0", "master", "br0")
	b := &crowdedBridge{t: t, far: nstest.OpenLink(t, far, "down0")}
	const together = 64
	for from := 0; from < guests; from += together {
		pod := nstest.New(t)
		var some []port.Attachment
		for i := from; i < min(from+together, guests); i++ {
			some = append(some, attachment(port.Tap, table, i))
		}
		n.attach(pod, some...)
		for _, a := range some {
			s := &station{TB: t, ns: pod, tap: a.TapName()}
			fd := s.open(false)
			t.Cleanup(func() { unix.Close(fd) })
			b.taps = append(b.taps, fd)
		}
	}
	nstest.WaitForwarding(t, n.NS, "up0")
	return b
}

// toNobody is for a MAC address that no guest has.
var toNobody = nstest.Frame([]byte{2, 0, 0, 0xee, 0, 1}, farMAC, 60, "to nobody")

// drain counts what has arrived at all guests.
func (b *crowdedBridge) drain() (n int) {
	buf := make([]byte, 2048)
	for _, fd := range b.taps {
		for {
			if got, err := unix.Read(fd, buf); err != nil {
				break
			} else if bytes.Contains(buf[:got], []byte("to nobody")) {
				n++
			}
		}
	}
	return n
}

// atOnce is how many frames are sent before the guests read: each becomes as many
// as there are guests, and the kernel's queue for a processor takes 1000
// (net.core.netdev_max_backlog).
const atOnce = 2

// flood sends frames to nobody, few at a time, as no queue is to overflow. The
// processor time is that of the sending thread, which forwarding is part of, and of
// the threads to which the kernel moves such work when there is much.
func (b *crowdedBridge) flood(frames int) (delivered int, cpu time.Duration) {
	b.t.Helper()
	var sending side
	for range frames / atOnce {
		b.drain() // reading is the guests' part, and as much as there is to read
		before := softirqTime(b.t)
		done := onThread(&sending)
		for range atOnce {
			b.far.Send(toNobody)
		}
		done()
		time.Sleep(settled)
		cpu += sending.cpu + softirqTime(b.t) - before
		delivered += b.drain()
	}
	return delivered, cpu
}

// settled is when frames have been delivered.
const settled = 2 * time.Millisecond

// idle is the processor time that the kernel's threads take while nothing is sent.
func (b *crowdedBridge) idle(frames int) (cpu time.Duration) {
	b.t.Helper()
	for range frames / atOnce {
		before := softirqTime(b.t)
		time.Sleep(settled)
		cpu += softirqTime(b.t) - before
	}
	return cpu
}

// softirqTime is the processor time of the kernel's threads for softirqs.
func softirqTime(t *testing.T) (total time.Duration) {
	t.Helper()
	for _, file := range softirqThreads() {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		total += time.Duration(ns)
	}
	return total
}

var threads []string

// softirqThreads are the files that tell how long each has run; none where the
// process cannot see them.
func softirqThreads() []string {
	if threads == nil {
		threads = []string{}
		names, _ := filepath.Glob("/proc/[0-9]*/comm") // fails on a bad pattern only
		for _, name := range names {
			comm, err := os.ReadFile(name)
			if err == nil && strings.HasPrefix(string(comm), "ksoftirqd/") {
				threads = append(threads, filepath.Join(filepath.Dir(name), "schedstat"))
			}
		}
	}
	return threads
}

// floods sends to an address that no port is known for.
func floods(t *testing.T, e extent, _ programs, r *report) {
	r.heading("Unknown unicast")
	r.text("Frames of 60 bytes come in by the uplink of a bridge with %d guests in mode `tap`, for a MAC address that none of them has. "+
		"CPU is the processor time of sending and forwarding per frame: that of the sending thread and of the kernel's threads for softirqs, without what guests spend on reading.", e.guests)
	rows := [][]string{{"`macTableManager`", "deliveries per frame", "CPU per frame, µs"}}
	bridges := map[port.Table]*crowdedBridge{port.Kernel: crowdedBy(t, port.Kernel, e.guests), port.Sticky: crowdedBy(t, port.Sticky, e.guests)}
	cost, delivered, sent := map[port.Table]*sample{port.Kernel: {}, port.Sticky: {}}, map[port.Table]int{}, 0
	const rounds = 5
	for range rounds {
		some := max(e.floods/rounds/atOnce, 1) * atOnce
		sent += some
		for table, b := range bridges {
			n, cpu := b.flood(some)
			cost[table].add(float64((cpu - b.idle(some)).Nanoseconds()) / 1000 / float64(some))
			delivered[table] += n
		}
	}
	for _, x := range []struct {
		name  string
		table port.Table
	}{{"`kernel`", port.Kernel}, {"`libvirt`", port.Sticky}} {
		rows = append(rows, []string{x.name, fmt.Sprintf("%.1f", float64(delivered[x.table])/float64(sent)), cost[x.table].String()})
	}
	r.table(rows...)
	r.promise("deliveries of unknown unicast with `libvirt`", float64(delivered[port.Sticky]), "≤", 0)
	r.promise("CPU of unknown unicast with `libvirt`, of that with `kernel`", ratio(cost[port.Sticky].median(), cost[port.Kernel].median()), "≤", 0.05)
}
