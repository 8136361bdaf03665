package agent

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// sandboxes are those that the runtime has answered with.
type sandboxes struct {
	ids []string
	err error
}

// stray is a port of whose sandbox the runtime does not know.
type stray struct {
	since time.Time
	said  bool
}

// pauseBetween answers of the runtime is short enough for the grace period, and for an
// alert: that a runtime cannot be asked is known by how often it could not be.
func pauseBetween(after time.Duration) time.Duration { return min(after/5, time.Minute) }

// askRuntime asks now and again until ctx ends, and not in the loop, because a runtime
// may be slow. Nothing comes where there is nobody to ask.
func askRuntime(ctx context.Context, o Options) <-chan sandboxes {
	answers := make(chan sandboxes)
	if o.Sandboxes == nil {
		return answers
	}
	go func() {
		for {
			select {
			case answers <- ask(ctx, o):
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(pauseBetween(o.SweepAfter)):
			case <-ctx.Done():
				return
			}
		}
	}()
	return answers
}

func ask(ctx context.Context, o Options) (s sandboxes) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.ids, s.err = o.Sandboxes(ctx)
	return s
}

// sweep removes ports of whose sandbox the runtime has not known in any answer for the
// grace period. When it cannot be asked the period begins anew: it may have lost its
// memory of pods, and gets time to find them.
func (k *keeper) sweep(answer sandboxes, now time.Time) {
	defer func() { k.Metrics.strays.Set(float64(len(k.strays))) }()
	if k.runtimeFails(answer.err) {
		clear(k.strays)
		return
	}
	due := k.noteStrays(answer.ids, now)
	if len(due) == 0 {
		return
	}
	inhabited, err := k.site.Inhabited()
	if err != nil {
		k.Log.Error("nothing is swept", "error", err)
		return
	}
	for _, name := range due {
		k.sweepOne(k.ports[name], k.strays[name], inhabited)
	}
}

// runtimeFails says so once.
func (k *keeper) runtimeFails(err error) bool {
	if err != nil {
		k.Metrics.runtimeErrors.Inc()
	}
	switch failed := k.runtimeFailed; {
	case err != nil && !failed:
		k.Log.Warn("the runtime cannot be asked: nothing is swept", "error", err)
	case err == nil && failed:
		k.Log.Info("the runtime can be asked again")
	}
	k.runtimeFailed = err != nil
	return err != nil
}

// noteStrays returns the names of those that have been for the grace period.
func (k *keeper) noteStrays(ids []string, now time.Time) (due []string) {
	listed := map[string]bool{}
	for _, id := range ids {
		listed[id] = true
	}
	strays := map[string]*stray{}
	for _, name := range slices.Sorted(maps.Keys(k.ports)) {
		p := k.ports[name]
		if listed[p.ContainerID] || hasDigest(ids, p.ID) {
			continue
		}
		strays[name] = k.strays[name]
		if strays[name] == nil {
			strays[name] = &stray{since: now}
		}
		if now.Sub(strays[name].since) >= k.SweepAfter {
			due = append(due, name)
		}
	}
	k.strays = strays
	return due
}

// hasDigest is for a container id that is too long for a record.
func hasDigest(ids []string, of port.ID) bool {
	return slices.ContainsFunc(ids, func(id string) bool { return of.Is(port.ID{ContainerID: id, IfName: of.IfName}) })
}

func (k *keeper) sweepOne(p attach.Attached, s *stray, inhabited map[int]bool) {
	log := k.about(p, attach.HostSide)
	if k.ObserveOnly {
		s.say(func() { log.Warn("the runtime does not know its sandbox") })
		return
	}
	removed, err := k.site.Sweep(p, inhabited)
	switch {
	case err != nil:
		s.say(func() { log.Warn("cannot be swept", "error", err) })
	case !removed:
		s.say(func() { log.Warn("the runtime does not know its sandbox, but it is in use: it is left alone") })
	default:
		delete(k.strays, p.PortName())
		k.Metrics.sweeps.Inc()
		log.Info("swept: the runtime does not know its sandbox", "since", s.since)
	}
}

// say says something once.
func (s *stray) say(f func()) {
	if !s.said {
		f()
	}
	s.said = true
}
