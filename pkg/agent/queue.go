package agent

import (
	"time"

	"github.com/tapbridge/tapbridge/pkg/attach"
)

// part is what is compared at once: one side of one port.
type part struct {
	port string // its name
	side attach.Side
}

// queue holds the parts that are to be compared, each once.
type queue struct {
	due   map[part]time.Time
	timer *time.Timer
	next  time.Time // that the timer is set to; zero: it is not
}

func newQueue() *queue {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &queue{due: map[part]time.Time{}, timer: t}
}

// ready delivers when something is due.
func (q *queue) ready() <-chan time.Time { return q.timer.C }

// add puts a part in. One that is in already keeps its time, unless the new one is
// earlier: what changes all the time must be compared as well.
func (q *queue) add(p part, at time.Time) {
	if was, in := q.due[p]; in && !at.Before(was) {
		return
	}
	q.due[p] = at
	if q.next.IsZero() || at.Before(q.next) {
		q.set(at)
	}
}

// take removes the parts that are due by now.
func (q *queue) take(now time.Time) (parts []part) {
	var next time.Time
	for p, at := range q.due {
		if !at.After(now) {
			parts = append(parts, p)
			delete(q.due, p)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	q.next = next
	if !next.IsZero() {
		q.set(next)
	}
	return parts
}

func (q *queue) set(at time.Time) {
	q.next = at
	q.timer.Reset(time.Until(at))
}
