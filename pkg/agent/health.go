package agent

import (
	"sync/atomic"
	"time"
)

// Health tells others how an agent is. The zero value is that of one that has not
// begun.
type Health struct {
	turned atomic.Pointer[time.Time] // when the loop last did something; nil: it has not begun
	ready  atomic.Bool
}

// Ready reports whether everything has been compared once.
func (h *Health) Ready() bool { return h.ready.Load() }

// Alive reports whether the agent has got on within that time. It does at least
// every interval.
func (h *Health) Alive(within time.Duration) bool {
	last := h.turned.Load()
	return last != nil && time.Since(*last) < within
}

// turn keeps the monotonic reading: the node's clock may be set meanwhile.
func (h *Health) turn() {
	now := time.Now()
	h.turned.Store(&now)
}
