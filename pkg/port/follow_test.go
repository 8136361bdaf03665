package port_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// A port whose guest is followed is right in two states, and in nothing between or
// besides them.
func TestFollowHasTwoStates(t *testing.T) {
	entry := func(p *port.Port, e fdb.Entry) {
		e.MAC = p.FDB[0].MAC
		p.FDB = []fdb.Entry{e}
	}
	for _, locked := range []bool{false, true} {
		a := attachment(port.Tap, port.Follow)
		a.Locked = locked
		want := a.Want()
		own := want.Name
		for _, c := range []struct {
			does   string
			to     func(got *port.Port)
			differ string
		}{
			{"waits", func(*port.Port) {}, ""},
			{"waits, the guest is elsewhere", func(p *port.Port) { entry(p, fdb.Entry{Port: "up0", State: fdb.Learned}) }, ""},
			{"waits, the guest has spoken", func(p *port.Port) { entry(p, fdb.Entry{Port: own, State: fdb.Learned}) }, ""},
			{"runs", func(p *port.Port) { *p = p.Running() }, ""},
			{"learns, or does not, against its wish", func(p *port.Port) { p.Bridge.Learning = !p.Bridge.Learning }, fmt.Sprintf("learning is %s, want %s", onOff(locked), onOff(!locked))},
			{"floods", func(p *port.Port) { p.Bridge.UnicastFlood = true }, "unicast flood is on, want off"},
			{"is somebody else's", func(p *port.Port) { entry(p, fdb.Entry{Port: "up0", State: fdb.Static}) }, "FDB entry 52:54:00:12:34:56 is static, at port up0, want none: the guest has not spoken here"},
			{"runs and learns", func(p *port.Port) { *p = p.Running(); p.Bridge.Learning = true }, "learning is on, want off"},
			{"runs and roams", func(p *port.Port) { *p = p.Running(); p.FDB[0].Sticky = false }, "FDB entry 52:54:00:12:34:56: sticky is off, want on"},
		} {
			got := a.Want()
			if c.to(&got); got.Waits() {
				got.FDB = nil // as it is observed
			}
			text := ""
			if err := port.Diff(want, got); err != nil {
				text = strings.TrimPrefix(err.Error(), `port "`+own+`": `)
			}
			if diff := cmp.Diff(c.differ, text); diff != "" {
				t.Errorf("locked %v, %s (-want +got):\n%s", locked, c.does, diff)
			}
		}
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
