// Package agent keeps the ports of a node as their records say, for as long as
// they are there: it hears of every change, compares, and has it repaired. How a
// port is compared and repaired is the business of package attach; this one knows
// when.
//
// It keeps no state: what it remembers makes it faster, and is read from the kernel
// again when it is started again.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/attach"
)

// Options are what an operator can choose.
type Options struct {
	Interval    time.Duration // between two comparisons of everything; at least a second
	ObserveOnly bool          // report what differs, change nothing
	Log         *slog.Logger
	Metrics     *Metrics // nil: nobody reads them
	Health      *Health  // likewise

	// Sandboxes tells the ids of all pod sandboxes on the node; nil: nobody can, and
	// no port is swept.
	Sandboxes  func(context.Context) ([]string, error)
	SweepAfter time.Duration // that a sandbox has been unknown; at least a second
}

// Check refuses what Run could not do.
func (o Options) Check() error {
	if o.Interval < time.Second {
		return fmt.Errorf("interval %v: want at least 1s", o.Interval)
	}
	if o.Sandboxes != nil && o.SweepAfter < time.Second {
		return fmt.Errorf("sweep after %v: want at least 1s", o.SweepAfter)
	}
	return nil
}

const (
	// debounce lets what belongs together happen first, such as an ADD.
	debounce = 30 * time.Millisecond
	// again is when a bridge that was locked, or a pod that could not be entered,
	// is looked at again.
	again = 100 * time.Millisecond
)

// Run keeps the ports in the network namespace of the process until ctx ends,
// which is no error. It works on the caller's thread.
func Run(ctx context.Context, o Options) error {
	site, err := attach.Open()
	if err != nil {
		return err
	}
	defer site.Close()
	events, err := rtnl.Listen()
	if err != nil {
		return err
	}
	if another, err := attach.AgentRuns(); err == nil && another && !o.ObserveOnly {
		o.Log.Warn("another agent keeps the ports of this network namespace: end one of them, or run this one with -observe-only")
	}
	var presence *attach.Presence
	if !o.ObserveOnly {
		if presence, err = promise(); err != nil {
			return errors.Join(err, events.Close())
		}
		defer presence.Close()
	}
	heard := hear(events)
	defer func() {
		events.Close()
		for range heard { // until the reader has ended
		}
	}()
	k := newKeeper(site, o)
	k.presence = presence
	defer k.follower.close()
	err = k.run(ctx, heard)
	o.Log.Info("ended", "ports", len(k.ports), "repairs", k.repairs, "activations", k.activations, "withdrawals", k.withdrawals, "foreign", k.foreign, "promotions", k.promotions, "demotions", k.demotions)
	return err
}

// hearing is what one read of the kernel's events brought.
type hearing struct {
	events []rtnl.Event
	at     time.Time // when they were read
	err    error
}

// hear reads until the listener is closed, or cannot be read.
func hear(l *rtnl.Listener) <-chan hearing {
	heard := make(chan hearing, 64)
	go func() {
		defer close(heard)
		for {
			events, err := l.Next()
			if errors.Is(err, os.ErrClosed) {
				return
			}
			heard <- hearing{events, time.Now(), err}
			if err != nil && !errors.Is(err, rtnl.ErrLost) {
				return
			}
		}
	}()
	return heard
}

// run compares everything at first, when events were lost, and every interval;
// in between what events speak of.
func (k *keeper) run(ctx context.Context, heard <-chan hearing) error {
	all := time.NewTicker(k.Interval)
	defer all.Stop()
	answers := askRuntime(ctx, k.Options)
	begin := time.Now()
	k.compareAll(true)
	k.Log.Info("started", "interval", k.Interval, "observeOnly", k.ObserveOnly, "ports", len(k.ports), "comparedIn", time.Since(begin))
	for {
		k.Health.turn()
		select {
		case <-ctx.Done():
			return nil
		case <-all.C:
			if err := k.presence.Check(); err != nil {
				return err
			}
			k.compareAll(false)
		case <-k.overdue:
			k.compareAll(false)
		case <-k.queue.ready():
			k.compareDue(time.Now())
		case answer := <-answers:
			k.sweep(answer, time.Now())
		case v := <-k.voices:
			k.heard(v)
		case now := <-k.pulse.C:
			k.promoteReady(now)
		case h := <-heard:
			if err := k.hear(h); err != nil {
				return err
			}
		}
	}
}

func (k *keeper) hear(h hearing) error {
	if errors.Is(h.err, rtnl.ErrLost) {
		k.Log.Warn("everything is compared: " + h.err.Error())
		k.Metrics.lost.Inc()
		k.compareAll(true)
		return nil
	}
	for _, e := range h.events {
		k.followed(e, h.at)
		k.suspect(e)
		for _, p := range k.touched(e) {
			k.add(p, time.Now().Add(debounce))
		}
	}
	return h.err
}
