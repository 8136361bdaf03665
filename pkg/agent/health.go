package agent

import (
	"sync/atomic"
	"time"
)

// Health tells others how an agent is. The zero value is that of one that has not
// begun.
type Health struct {
	turned atomic.Int64 // when the loop last did something, in nanoseconds since 1970
	ready  atomic.Bool
}

// Ready reports whether everything has been compared once.
func (h *Health) Ready() bool { return h.ready.Load() }

// Alive reports whether the agent has got on within that time. It does at least
// every interval.
func (h *Health) Alive(within time.Duration) bool {
	return time.Since(time.Unix(0, h.turned.Load())) < within
}

func (h *Health) turn() { h.turned.Store(time.Now().UnixNano()) }
