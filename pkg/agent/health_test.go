package agent

import (
	"testing"
	"time"
)

// Whether the agent gets on does not depend on the node's clock, which may be set at any
// time: what is remembered can be compared with another reading of the monotonic one.
func TestHealthHeedsNoClock(t *testing.T) {
	var h Health
	if h.Alive(time.Hour) {
		t.Error("alive before it has begun")
	}
	h.turn()
	if last := *h.turned.Load(); last == last.Round(0) { // Round(0) strips the monotonic reading
		t.Errorf("%v is of the wall clock alone", last)
	}
	if !h.Alive(time.Minute) || h.Alive(0) {
		t.Error("not alive within the time")
	}
}
