// Package shape limits how fast frames leave a device, and makes the device
// through which what arrives at another one can be limited as well. Which
// devices those are is the business of package port.
package shape

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Limit is a rate and what may exceed it. The zero Limit is none.
type Limit struct {
	Rate  uint64 // bytes per second
	Burst uint64 // bytes that pass at once after a silence; up to 4 GiB - 1
}

// Queue is what stands at the egress of a device: nothing at all, or a token
// bucket.
type Queue struct {
	Kind string // of qdisc
	Limit
	Backlog uint32 // bytes that may wait for tokens
}

// The kinds of qdisc that are used.
const (
	noqueue = "noqueue" // frames leave without taking a lock
	tbf     = "tbf"
)

// None passes frames on at once.
var None = Queue{Kind: noqueue}

const (
	// latency is how long the last frame of a full backlog waits, in
	// milliseconds: TCP needs some to keep the rate, and more is only delay.
	latency = 50
	// smallestBacklog has room for two of the largest packets that a guest
	// sends unsegmented (GSO_LEGACY_MAX_SIZE), in bytes.
	smallestBacklog = 2 << 16
)

// Queue is the token bucket that holds to the limit; None without one.
func (l Limit) Queue() Queue {
	if l == (Limit{}) {
		return None
	}
	return Queue{Kind: tbf, Limit: l, Backlog: uint32(min(max(l.Rate/1000*latency, smallestBacklog), 1<<32-1))}
}

func (q Queue) String() string {
	if q.Kind != tbf {
		return q.Kind
	}
	return fmt.Sprintf("%s of %d bit/s, burst %d bit, backlog %d bytes", q.Kind, q.Rate*8, q.Burst*8, q.Backlog)
}

// Set makes q the queue of the device at index, in place of any other.
func (q Queue) Set(c *rtnl.Conn, index int) error {
	var options *nl.RtAttr
	if q.Kind == tbf {
		options = q.options()
	}
	if err := c.SetQdisc(index, q.Kind, options); err != nil {
		return fmt.Errorf("set queue %s: %w", q, err)
	}
	return nil
}

// options give the burst in bytes: as a time, in TCA_TBF_PARMS, the kernel would
// cut it at what passes in 4.3 seconds (net/sched/sch_tbf.c, tbf_change).
func (q Queue) options() *nl.RtAttr {
	parms := nl.TcTbfQopt{
		Rate:  nl.TcRateSpec{Linklayer: nl.LINKLAYER_ETHERNET, Rate: uint32(min(q.Rate, 1<<32-1))},
		Limit: q.Backlog,
	}
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_TBF_PARMS, parms.Serialize())
	if q.Rate >= 1<<32 {
		options.AddRtAttr(nl.TCA_TBF_RATE64, nl.Uint64Attr(q.Rate))
	}
	options.AddRtAttr(nl.TCA_TBF_BURST, nl.Uint32Attr(uint32(q.Burst)))
	return options
}

// Observe reads the queue of l. want is what it is going to be compared with: see
// burst.
func Observe(c *rtnl.Conn, l rtnl.Link, want Queue) (Queue, error) {
	if l.Qdisc != tbf {
		return Queue{Kind: l.Qdisc}, nil
	}
	options, err := c.QdiscOptions(l.Index)
	if err != nil {
		return Queue{}, err
	}
	if len(options.Get(nl.TCA_TBF_PARMS)) < nl.SizeofTcTbfQopt {
		return Queue{}, fmt.Errorf("the kernel describes tbf by %d bytes: %w", len(options.Get(nl.TCA_TBF_PARMS)), unix.EPROTO)
	}
	parms := nl.DeserializeTcTbfQopt(options.Get(nl.TCA_TBF_PARMS))
	q := Queue{Kind: tbf, Backlog: parms.Limit}
	q.Rate = uint64(parms.Rate.Rate)
	if rate, ok := options.Uint64(nl.TCA_TBF_RATE64); ok {
		q.Rate = rate
	}
	q.Burst = burst(q.Rate, parms.Buffer, want.Burst)
	return q, nil
}

// tick is the kernel's unit for the time that a burst takes at the rate, in
// nanoseconds (include/net/pkt_sched.h, PSCHED_SHIFT).
const tick = 64

// burst is the size of a bucket of which the kernel tells the time in ticks,
// rounded, and of that only the lower 32 bits: 4.6 minutes. A wanted burst that
// looks the same is taken to be the one that is there.
func burst(rate uint64, ticks uint32, wanted uint64) uint64 {
	if rate == 0 {
		return 0
	}
	const nsPerSecond = 1e9
	full := wanted * nsPerSecond / rate / tick
	off := int64(int32(ticks - uint32(full)))
	if tolerance := int64(1 + full>>24); -tolerance <= off && off <= tolerance {
		return wanted
	}
	return uint64(ticks) * tick * rate / nsPerSecond
}
