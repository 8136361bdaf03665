package bridge_test

import (
	"slices"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/bridge"
)

func TestVLANsHaveOneForm(t *testing.T) {
	for want, ranges := range map[bridge.VLANs][]bridge.VLAN{
		"":             nil,
		"42PU":         {{First: 42, Last: 42, PVID: true, Untagged: true}},
		"1U 42PU":      {{First: 42, Last: 42, PVID: true, Untagged: true}, {First: 1, Last: 1, Untagged: true}},
		"5-9":          {{First: 7, Last: 9}, {First: 5, Last: 5}, {First: 6, Last: 6}},
		"5 6P 7":       {{First: 5, Last: 5}, {First: 6, Last: 6, PVID: true}, {First: 7, Last: 7}},
		"5-6U 7 9":     {{First: 5, Last: 6, Untagged: true}, {First: 7, Last: 7}, {First: 9, Last: 9}},
		"1-4094":       {{First: 1, Last: 4094}},
		"1PU 100-4094": {{First: 100, Last: 4094}, {First: 1, Last: 1, PVID: true, Untagged: true}},
	} {
		got := bridge.NewVLANs(ranges...)
		if got != want {
			t.Errorf("%v: %q, want %q", ranges, got, want)
		}
		back, err := got.Ranges()
		if err != nil || bridge.NewVLANs(back...) != want {
			t.Errorf("%q reads as %v, %v", got, back, err)
		}
	}
	for _, bad := range []bridge.VLANs{"0", "4095", "5-4", "x", "5-", "5UP", "5  6", "6 5", "5 6", " 5", "5-9 7"} {
		if ranges, err := bad.Ranges(); err == nil {
			t.Errorf("%q reads as %v", bad, ranges)
		}
	}
}

func TestIDs(t *testing.T) {
	for l, want := range map[bridge.VLANs][]uint16{"": {0}, "7PU": {7}, "1U 5-7": {1, 5, 6, 7}} {
		if got := l.IDs(); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", l, got, want)
		}
	}
}
