package agent

import (
	"time"

	"github.com/tapbridge/tapbridge/pkg/port"
)

const (
	// patience is how often the same difference is repaired at once.
	patience = 5
	// calm is the time without a repair after which a difference is a new one.
	calm = 10 * time.Second
	// The pause after one more than patience, and the longest that it grows to.
	shortestPause, longestPause = time.Second, 5 * time.Minute
)

// pace tells a port that has been disturbed from one that another program disturbs
// whenever it is repaired, and slows the second down: two that never rest would
// cost the node more than a port that is wrong.
type pace struct {
	rounds map[port.Difference]round
	until  time.Time // of the pause
}

// round is how often one difference has been repaired without a calm.
type round struct {
	n    int
	last time.Time
}

// repaired notes a repair, and returns the pause that has to follow; 0 for none.
func (p *pace) repaired(differences port.Differences, now time.Time) (pause time.Duration) {
	if p.rounds == nil {
		p.rounds = map[port.Difference]round{}
	}
	p.forget(now)
	for _, d := range differences {
		r := round{p.rounds[d].n + 1, now}
		p.rounds[d] = r
		pause = max(pause, pauseAfter(r.n))
	}
	p.until = now.Add(pause)
	return pause
}

// forget drops what has not come back for a while after its pause.
func (p *pace) forget(now time.Time) {
	for d, r := range p.rounds {
		if now.Sub(r.last) > calm+pauseAfter(r.n) {
			delete(p.rounds, d)
		}
	}
}

func pauseAfter(n int) time.Duration {
	if n <= patience {
		return 0
	}
	return min(shortestPause<<min(n-patience-1, 30), longestPause)
}
