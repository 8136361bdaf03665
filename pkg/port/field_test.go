package port_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

func TestField(t *testing.T) {
	for difference, want := range map[string]string{
		`learning is on, want off`:                                    "learning",
		`port "tb0123456789ab": MTU is 1300, want 1500`:               "port MTU",
		`pod interface "a \"is\" b": alias is mine: is it?, want x`:   "pod interface alias",
		`tap "tap1" is missing`:                                       "tap",
		`FDB entry 52:54:00:12:34:56 in VLAN 42: port is up0, want x`: "FDB entry port",
		`tap "tbt012": no VMM has it open, want it in the pod`:        "tap no VMM has it open, want it in the pod",
		`port state is disabled, want forwarding`:                     "port state",
		`ipSpoofChk rules are missing or changed`:                     "ipSpoofChk rules",
		`ipSpoofChk: addresses is 10.0.0.2, want none`:                "ipSpoofChk addresses",
		`VLANs are none or bridge br0 is not VLAN-aware, want VLANs`:  "VLANs",
	} {
		if got := port.Field(difference); got != want {
			t.Errorf("%s: field %q, want %q", difference, got, want)
		}
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
					field := port.Field(d)
					if all[field] = true; field == "" || strings.ContainsAny(field, `":0123456789`) && !strings.Contains(field, "IPv6") {
						t.Errorf("%s: field %q", d, field)
					}
				}
			}
		}
	}
	return all
}
