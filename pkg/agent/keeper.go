package agent

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// keeper is one Run under way.
type keeper struct {
	Options
	site *attach.Site
	*queue
	known
	state map[part]*state
	pods  podPaths
	follower
	promoter

	deletions map[string]*deletion // by the port's name
	nameless  map[string]bool      // ports without a record that were there at the last comparison of all; true: it has been said
	repairs   int

	overdue     <-chan time.Time // when a comparison of everything that has failed is tried again; nil: none has
	podsOverdue bool             // with the pods' sides
	failures    map[string]bool  // why comparisons have failed since one of everything has not, as it was said

	strays        map[string]*stray // by the port's name
	runtimeFailed bool
}

// state is what has become of a part so far.
type state struct {
	pace
	entry
	turns   map[string]*pace // of the guest's coming and going, as it is told, by message
	repairs int
	said    string // what was reported last, and still holds
}

func newKeeper(s *attach.Site, o Options) *keeper {
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Health == nil {
		o.Health = &Health{}
	}
	known := newKnown()
	return &keeper{
		Options: o, site: s, queue: newQueue(),
		known: known, state: map[part]*state{},
		pods: podPaths{site: s, ports: known.ports}, nameless: map[string]bool{}, failures: map[string]bool{},
		deletions: map[string]*deletion{},
		follower:  newFollower(),
		promoter:  newPromoter(),
	}
}

// portions is in how many parts the pods are compared, spread over the interval:
// they have to be entered one by one, and meanwhile no event is dealt with.
const portions = 10

// compareAll compares every port that there is: the pods' sides now, or in the course
// of the interval. What fails is tried again soon: events may have been lost.
func (k *keeper) compareAll(podsNow bool) {
	k.overdue = nil
	k.podsOverdue = k.podsOverdue || podsNow
	if err := k.tryAll(k.podsOverdue); err != nil {
		k.failed(err)
		k.overdue = time.After(time.Second)
		return
	}
	if len(k.failures) > 0 {
		k.Log.Info("compared again")
		clear(k.failures)
	}
	k.podsOverdue = false
	k.Health.ready.Store(true)
}

func (k *keeper) tryAll(podsNow bool) error {
	defer k.measured(time.Now())
	survey, all, unrecorded, err := k.site.Survey()
	if err != nil {
		return err
	}
	k.pods.mayRefresh()
	there := k.rememberAll(all, unrecorded)
	k.reportNameless(unrecorded)
	if !k.ObserveOnly && slices.ContainsFunc(all, func(p attach.Attached) bool { return p.Guarded }) {
		if err := k.site.UnguardGone(); err != nil {
			k.Log.Warn("guards of devices that have gone stay", "error", err)
		}
	}
	now := time.Now()
	for i, name := range there {
		p := k.ports[name]
		k.compareBy(survey, p, attach.HostSide, now)
		if !slices.Contains(attach.SidesOf(p.Attachment), attach.PodSide) {
			continue
		}
		if podsNow {
			k.compare(p, attach.PodSide, now)
		} else {
			k.add(part{name, attach.PodSide}, now.Add(k.Interval/portions*time.Duration(portions*i/len(k.ports))))
		}
	}
	return nil
}

// rememberAll also forgets the ports that have gone. It returns the names of those that are
// there.
func (k *keeper) rememberAll(all []attach.Attached, unrecorded []rtnl.Link) []string {
	there := map[string]bool{}
	for _, p := range all {
		if p.Port.Index == 0 {
			if _, known := k.ports[p.PortName()]; !known {
				_ = k.removeOrphan(p) // the next comparison finds it again
			}
			continue
		}
		there[p.PortName()] = true
		k.remember(p)
	}
	for name := range k.ports {
		switch {
		case there[name]:
		case slices.ContainsFunc(unrecorded, func(l rtnl.Link) bool { return l.Name == name }): // compared with what it had
			for _, side := range sides {
				k.add(part{name, side}, time.Now())
			}
		default:
			k.gone(name)
		}
	}
	for name := range k.deletions {
		k.seeDeleted(name, time.Now())
	}
	return slices.Sorted(maps.Keys(there))
}

// measured notes how long a comparison of everything has taken, and how the ports
// stand after it.
func (k *keeper) measured(begin time.Time) {
	k.Metrics.comparison.Observe(time.Since(begin).Seconds())
	k.publish(time.Now())
}

func (k *keeper) compareDue(now time.Time) {
	defer func() { k.publish(time.Now()) }()
	for _, w := range k.take(now) {
		p, there, err := k.find(w.port)
		if err != nil {
			k.failed(err, "port", w.port)
		} else if !there {
			k.seeDeleted(w.port, now)
		} else if slices.Contains(attach.SidesOf(p.Attachment), w.side) {
			k.compare(p, w.side, now)
		}
	}
}

// remember allows a search for the pod of a port that is new, and looks for its
// ifb: events of queues and filters have an index only.
func (k *keeper) remember(p attach.Attached) {
	delete(k.deletions, p.PortName())
	if !k.known.remember(p) {
		return
	}
	delete(k.pods.missed, p.Port.NetNsID)
	if p.Want().IFB == nil {
		return
	}
	if l, err := k.site.Host().LinkNamed(p.IFBName()); err == nil {
		k.names[l.Index] = l.Name
	}
}

var sides = []attach.Side{attach.HostSide, attach.PodSide}

func (k *keeper) forget(name string) {
	k.known.forget(name)
	k.unhear(name)
	delete(k.strangers, name)
	delete(k.lifts, name)
	delete(k.states, name)
	for _, side := range sides {
		delete(k.state, part{name, side})
	}
}

// compare looks at one part, and repairs it where it must and may.
func (k *keeper) compare(p attach.Attached, side attach.Side, now time.Time) {
	k.compareBy(k.site, p, side, now)
}

// compareBy sees the host's side by way of a Site that may know it already.
func (k *keeper) compareBy(host *attach.Site, p attach.Attached, side attach.Side, now time.Time) {
	k.settle(p)
	w := part{p.PortName(), side}
	if side == attach.HostSide {
		defer k.follow(p, now)
	}
	s := k.stateOf(w)
	if now.Before(s.until) {
		k.add(w, s.until)
		return
	}
	err := k.on(host, p, side, func(site *attach.Site) error { return k.keep(site, p, side) })
	switch {
	case errors.Is(err, attach.ErrBusy):
		k.add(w, time.Now().Add(again))
	case s.mayEnd(err):
		k.add(w, time.Now().Add(afterwards))
	case err != nil && k.stands(p):
		k.report(p, side, nil, err)
	}
}

// stands reports whether a port is still there, and stays: one that goes while it is
// looked at, or is about to go with its pod, is an error that nobody needs to know.
func (k *keeper) stands(p attach.Attached) bool {
	_, there, err := k.site.Seek(p)
	return err != nil || there && !k.site.PodEnds(p)
}

// find sees a port for the first time, or again. One that has gone is forgotten.
func (k *keeper) find(name string) (p attach.Attached, there bool, err error) {
	known, seen := k.ports[name]
	if seen {
		p, there, err = k.site.Seek(known)
	} else {
		p, there, err = k.site.Named(name)
	}
	switch {
	case err != nil:
	case there:
		k.remember(p)
	case seen:
		k.gone(name)
	}
	return p, there, err
}

func (k *keeper) stateOf(w part) *state {
	if k.state[w] == nil {
		k.state[w] = &state{turns: map[string]*pace{}}
	}
	return k.state[w]
}

// on calls f with a Site that has that side of p.
func (k *keeper) on(host *attach.Site, p attach.Attached, side attach.Side, f func(*attach.Site) error) error {
	if side == attach.HostSide {
		return f(host)
	}
	return k.pods.in(p, f)
}

// keep looks without the lock first, so that what is right keeps no ADD waiting.
func (k *keeper) keep(site *attach.Site, p attach.Attached, side attach.Side) error {
	k.Health.turn()
	k.Metrics.comparisons.WithLabelValues(string(side)).Inc()
	found, err := site.Compare(p, side)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return k.passing(site, p, side)
	}
	if k.ObserveOnly {
		if found, err = site.Confirm(p, side); len(found) > 0 {
			k.report(p, side, found, nil)
		}
		return err
	}
	r, err := site.Repair(p, side)
	if errors.Is(err, attach.ErrBusy) {
		return err
	}
	if (err != nil || len(r.Left) > 0) && !k.stands(p) {
		return nil
	}
	k.repaired(p, side, r, err)
	if side == attach.HostSide && (err != nil || len(without(r.Found, r.Left)) < len(r.Found)) {
		k.fallBack(p)
	}
	return nil
}

// passing is for a port that is as it should be; its bridge may not be, which is for its
// administrator to repair.
func (k *keeper) passing(site *attach.Site, p attach.Attached, side attach.Side) error {
	if side == attach.HostSide {
		if wrong, err := site.OfBridge(p.Attachment); err != nil || len(wrong) > 0 {
			k.report(p, side, wrong, err)
			return nil
		}
	}
	k.settled(p, side)
	return nil
}

func (k *keeper) repaired(p attach.Attached, side attach.Side, r attach.Repaired, err error) {
	s := k.stateOf(part{p.PortName(), side})
	done := without(r.Found, r.Left)
	if r.Acted && len(done) > 0 {
		s.repairs++
		k.repairs++
		k.Metrics.repaired(side, done)
		k.about(p, side).Info("repaired", "differences", done, "repairs", s.repairs)
	} else {
		done = r.Found // in vain
	}
	switch {
	case len(r.Left) == 0 && err == nil:
		s.said = ""
	case r.Gone:
		k.report(p, side, r.Left, err, "remedy", "delete the pod")
	default:
		k.report(p, side, r.Left, err)
	}
	if !r.Acted {
		return
	}
	k.leaveAlone(p, side, s.disturbed(fieldsOf(done), time.Now()), "another program undoes every repair, or it has no effect", "differences", done)
}

// leaveAlone says that a side of a port is left alone for the pause, if there is one.
func (k *keeper) leaveAlone(p attach.Attached, side attach.Side, pause time.Duration, because string, words ...any) {
	if pause == 0 {
		return
	}
	w := part{p.PortName(), side}
	k.Metrics.pauses.WithLabelValues(string(side)).Inc()
	k.about(p, side).With("pause", pause).Warn(because+": this side of the port is left alone for a while", words...)
	k.add(w, k.stateOf(w).until)
}

func without(all, some port.Differences) port.Differences {
	return slices.DeleteFunc(slices.Clone(all), func(d port.Difference) bool { return slices.Contains(some, d) })
}
