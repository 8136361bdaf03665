package port_test

import (
	"testing"

	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

// Whatever somebody writes into an alias: it is refused, or it is a record that
// reads back the same and names the devices it can be on.
func FuzzParseRecord(f *testing.F) {
	for _, mode := range port.Modes {
		a := attachment(mode, port.Sticky)
		f.Add(a.Record())
		a.VLANs, a.Options = "1U 42PU 100-110", port.Options{Isolated: true, Locked: true}
		f.Add(a.Record())
		a.FromGuest = shape.Limit{Rate: 1e6, Burst: 1e5}
		f.Add(a.Record())
	}
	f.Add("tapbridge/1 net= id= if= br= mac=02:00:00:00:00:01 mode=tap fdb=kernel mtu=0/0")
	f.Fuzz(func(t *testing.T, alias string) {
		a, err := port.ParseRecord(alias)
		if err != nil {
			return
		}
		if a.Record() != alias {
			t.Errorf("%q reads back as %q", alias, a.Record())
		}
		want := a.Want()
		if err := port.Diff(want, want); err != nil {
			t.Error(err)
		}
	})
}
