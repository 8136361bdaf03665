package port_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

// A difference is told to people with its names and values, and counted without.
func TestField(t *testing.T) {
	a := attachment(port.Tap, port.Sticky)
	a.VLANs, a.Guarded = "42PU", true
	names := strings.NewReplacer("PORT", a.PortName(), "TAP", a.TapName(), "PROMOTED", a.PromotedName(), "RECORD", a.Record())
	for _, c := range []struct {
		want        func() port.Port
		spoil       func(*port.Port)
		text, field string
	}{
		{a.Want, func(p *port.Port) { p.Bridge.Learning = true }, `learning is on, want off`, "learning"},
		{a.Want, func(p *port.Port) { p.End.MTU = 1300 }, `port "PORT": MTU is 1300, want 1500`, "port MTU"},
		{a.Want, func(p *port.Port) { p.Pod.Record = "mine: is it?" }, `pod interface "net1": alias is "mine: is it?", want "RECORD"`, "pod interface alias"},
		{a.Want, func(p *port.Port) { p.Tap = nil }, `tap "TAP" is missing`, "tap"},
		{a.Want, func(p *port.Port) { p.FDB[0].Port = "up0" }, `FDB entry 52:54:00:12:34:56 in VLAN 42: port is up0, want PORT`, "FDB entry port"},
		{a.WantPromoted, func(p *port.Port) { p.Held = false }, `tap "PROMOTED": no VMM has it open, want it in the pod`, "tap no VMM has it open, want it in the pod"},
		{a.Want, func(p *port.Port) { p.Bridge.Blocked = true }, `port state is disabled, want forwarding`, "port state"},
		{a.Want, func(p *port.Port) { p.Guard.Whole = false }, `ipSpoofChk rules are missing or changed`, "ipSpoofChk rules"},
		{a.Want, func(p *port.Port) { p.Guard.Addresses = "10.0.0.2" }, `ipSpoofChk: addresses is 10.0.0.2, want none`, "ipSpoofChk addresses"},
		{a.Want, func(p *port.Port) { p.Bridge.VLANs = "" }, `VLANs are none or bridge br0 is not VLAN-aware, want VLANs 42PU`, "VLANs"},
	} {
		got := c.want()
		c.spoil(&got)
		want := port.Difference{Text: names.Replace(c.text), Field: c.field}
		var drift *port.Drift
		if err := port.Diff(c.want(), got); !errors.As(err, &drift) || !slices.Contains(drift.Differences, want) {
			t.Errorf("%v, want %+v among the differences", err, want)
		}
	}
}

// Programs read a list, people one line.
func TestDifferencesAsText(t *testing.T) {
	d := port.Differences{{Text: "learning is on, want off", Field: "learning"}, {Text: `"x" is missing`}}
	text, err := json.Marshal(d)
	if want := `["learning is on, want off","\"x\" is missing"]`; err != nil || string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
	if want := `learning is on, want off; "x" is missing`; d.String() != want {
		t.Errorf("%s, want %s", d, want)
	}
}

// Two ports that share nothing have the same fields.
func TestFieldsAreFew(t *testing.T) {
	one, other := fields(t, port.ID{ContainerID: "4f5c", IfName: "net1"}), fields(t, port.ID{ContainerID: "0000", IfName: "pod2"})
	if !reflect.DeepEqual(one, other) {
		t.Errorf("the fields of one are %v, of another %v", one, other)
	}
	if len(one) < 30 || len(one) > 100 {
		t.Errorf("%d fields: %v", len(one), one)
	}
}

// fields are those of every difference that there can be.
func fields(t *testing.T, id port.ID) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, mode := range port.Modes {
		a := attachment(mode, port.Sticky)
		a.ID, a.VLANs = id, "42PU"
		a.ToGuest, a.FromGuest = shape.Limit{Rate: 1e6, Burst: 1e5}, shape.Limit{Rate: 2e6, Burst: 1e5}
		want := a.Want()
		for _, change := range changes(reflect.ValueOf(&want).Elem(), "Port") {
			got := a.Want()
			change(reflect.ValueOf(&got).Elem())
			var drift *port.Drift
			if errors.As(port.Diff(want, got), &drift) {
				for _, d := range drift.Differences {
					if all[d.Field] = true; d.Field == "" || strings.ContainsAny(d.Field, `":0123456789`) && !strings.Contains(d.Field, "IPv6") {
						t.Errorf("%s: field %q", d.Text, d.Field)
					}
				}
			}
		}
	}
	return all
}
