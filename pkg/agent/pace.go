package agent

import (
	"slices"
	"time"

	"github.com/tapbridge/tapbridge/pkg/port"
)

const (
	// patience is how often the same field is repaired at once.
	patience = 5
	// calm is the time without a repair after which a difference in it is a new one.
	calm = 10 * time.Second
	// The pause after one more than patience, and the longest that it grows to.
	shortestPause, longestPause = time.Second, 5 * time.Minute
)

// reports is as the field of every report of what cannot be repaired, whatever that is.
const reports = "reports"

// pace tells a port that has been disturbed from one that another program disturbs
// whenever it is repaired, and slows the second down: two that never rest would
// cost the node more than a port that is wrong.
type pace struct {
	rounds map[string]round // by field: who writes another value each time disturbs no less
	until  time.Time        // of the pause
}

// round is how often one field has been repaired without a calm.
type round struct {
	n    int
	last time.Time
}

// disturbed notes a repair of these fields, or a report, and returns the pause that has to
// follow; 0 for none.
func (p *pace) disturbed(fields []string, now time.Time) (pause time.Duration) {
	if p.rounds == nil {
		p.rounds = map[string]round{}
	}
	p.forget(now)
	for _, field := range fields {
		r := round{p.rounds[field].n + 1, now}
		p.rounds[field] = r
		pause = max(pause, pauseAfter(r.n))
	}
	if until := now.Add(pause); until.After(p.until) {
		p.until = until
	}
	return pause
}

// fieldsOf are those of the differences, each once.
func fieldsOf(all port.Differences) (fields []string) {
	for _, d := range all {
		if !slices.Contains(fields, d.Field) {
			fields = append(fields, d.Field)
		}
	}
	return fields
}

// forget drops what has not come back for a while after its pause.
func (p *pace) forget(now time.Time) {
	for field, r := range p.rounds {
		if now.Sub(r.last) > calm+pauseAfter(r.n) {
			delete(p.rounds, field)
		}
	}
}

func pauseAfter(n int) time.Duration {
	if n <= patience {
		return 0
	}
	return min(shortestPause<<min(n-patience-1, 30), longestPause)
}
