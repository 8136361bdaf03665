package agent

import (
	"errors"
	"time"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

const (
	// interval is how often the taps are asked whose guests have not spoken yet.
	interval = time.Second
	// A tap that could not be promoted, or was only for less than longestRest, rests
	// for so long, and twice as long the next time: each move of a tap keeps everybody
	// on the node from changing devices, and a VMM can come and go as it likes.
	shortestRest, longestRest = 2 * time.Second, 10 * time.Minute
)

// noVMM is why most taps are put back.
const noVMM = "no VMM has it open"

// promoter promotes the taps of guests that have begun to speak, and puts them back
// when the VMM has gone.
type promoter struct {
	lifts map[string]*lift // by port
	pulse *time.Timer
	beats bool

	promotions, demotions int
}

// lift is what is remembered of one tap.
type lift struct {
	entry
	waits  bool          // for the guest's first frame: a VMM is there, and the tap is in the pod
	frames uint64        // that came before; the counter outlives a VMM
	since  time.Time     // of the last promotion
	rest   time.Duration // the last one
	until  time.Time     // of the rest
	stuck  string        // why it could not be put back, as it was said

	tampered bool // an event told of another MAC address
}

func newPromoter() promoter {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return promoter{lifts: map[string]*lift{}, pulse: t}
}

// lift also begins to count the frames of a tap that is new.
func (k *keeper) lift(p attach.Attached) *lift {
	l := k.lifts[p.PortName()]
	if l == nil {
		l = &lift{}
		l.frames, _, _ = k.site.Sent(p)
		k.lifts[p.PortName()] = l
	}
	return l
}

// settle finds out where the tap of p is. In the pod, it waits for the guest; on the
// host, it is put back when the VMM has gone, or cannot be trusted with a port.
func (k *keeper) settle(p attach.Attached) {
	if !p.Promote || k.ObserveOnly {
		return
	}
	l := k.lift(p)
	is, err := k.site.Promotion(p)
	switch {
	case err != nil:
		k.Log.Error("it cannot be told where the tap is", "port", p.PortName(), "error", err)
	case !is.OnHost:
		k.await(p, l)
	case is.Tampered || l.tampered:
		l.rest, l.since = longestRest, time.Now()
		k.demote(p, l, "somebody, maybe the VMM, has changed its MAC address")
	case !is.Held:
		k.demote(p, l, noVMM)
	}
}

// suspect looks at what an event says of a promoted tap: by the time that it is
// compared, its MAC address may be right again.
func (k *keeper) suspect(e rtnl.Event) {
	if e.NetNsID != rtnl.NoPeer || e.Address.IsZero() || len(k.topics[e.Name]) != 1 { // a tap is one port's affair
		return
	}
	for name := range k.topics[e.Name] {
		p, l := k.ports[name], k.lifts[name]
		if l != nil && e.Name == p.PromotedName() && e.Address != p.Guest.Derived() {
			l.tampered = true
			k.add(part{name, attach.HostSide}, time.Now())
		}
	}
}

// await asks again while a VMM is there; that one comes is told by the kernel.
func (k *keeper) await(p attach.Attached, l *lift) {
	l.tampered = false
	if !l.waits {
		_, l.waits, _ = k.site.Sent(p)
	}
	k.beat(l.waits)
}

func (k *keeper) beat(needed bool) {
	if needed && !k.beats {
		k.beats = true
		k.pulse.Reset(interval)
	}
}

// promoteReady promotes the taps into which a VMM has sent a frame.
func (k *keeper) promoteReady(now time.Time) {
	k.beats = false
	for name, l := range k.lifts {
		if l.waits && !now.Before(l.until) {
			k.ask(k.ports[name], l)
		}
		k.beat(l.waits)
	}
}

func (k *keeper) ask(p attach.Attached, l *lift) {
	frames, held, err := k.site.Sent(p)
	switch {
	case err != nil || !held: // for the next one a frame is a first frame again
		l.waits, l.frames = false, frames
	case p.Table == port.Follow && k.states[p.PortName()] != attach.Running: // somebody else may have spoken
	case frames != l.frames:
		k.promote(p, l)
	}
}

func (k *keeper) promote(p attach.Attached, l *lift) {
	begin := time.Now()
	done := false
	err := k.pods.in(p, func(s *attach.Site) (err error) {
		done, err = s.Promote(p)
		return err
	})
	log := k.about(p, attach.HostSide)
	if !k.stands(p) {
		return
	}
	switch {
	case errors.Is(err, attach.ErrBusy):
		return // the next time
	case err != nil:
		k.Metrics.unpromoted.Inc()
		l.pause()
		log.Warn("the tap is not promoted: frames go by the veth pair", "error", err, "again", l.rest)
		return
	case done:
		k.promotions++
		k.Metrics.promotions.Inc()
		log.Info("promoted: the tap is the port", "tap", p.PromotedName(), "took", time.Since(begin))
	}
	l.waits, l.since = false, time.Now()
}

// demote puts the tap of p back.
func (k *keeper) demote(p attach.Attached, l *lift, because string) {
	err := k.pods.in(p, func(s *attach.Site) error { return s.Demote(p) })
	log := k.about(p, attach.HostSide)
	switch {
	case errors.Is(err, attach.ErrBusy):
		k.add(part{p.PortName(), attach.HostSide}, time.Now().Add(again))
	case l.mayEnd(err):
		k.add(part{p.PortName(), attach.HostSide}, time.Now().Add(afterwards))
	case err != nil && !k.stands(p): // what is left of it is removed when it has gone
	case err != nil:
		k.Metrics.unpromoted.Inc()
		if l.stuck != err.Error() {
			log.Warn("the tap is not put back into the pod", "error", err)
		}
		l.stuck = err.Error()
	default:
		k.demotions++
		k.Metrics.demotions.Inc()
		l.stuck = ""
		if time.Since(l.since) > longestRest {
			l.rest = 0
		}
		l.pause()
		l.frames, _, _ = k.site.Sent(p)
		log.Info("demoted: the tap is in the pod again", "because", because, "rest", l.rest)
		if p.Table == port.Follow && because == noVMM {
			k.withdrew(p)
		}
		k.await(p, l)
	}
}

// fallBack returns to the veth path where a promoted tap could not be made right on the
// host.
func (k *keeper) fallBack(p attach.Attached) {
	if is, err := k.site.Promotion(p); err == nil && is.Held && !k.ObserveOnly {
		k.demote(p, k.lift(p), "it could not be made right on the host")
	}
}

func (l *lift) pause() {
	l.rest = min(max(2*l.rest, shortestRest), longestRest)
	l.until = time.Now().Add(l.rest)
}
