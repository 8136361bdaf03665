package attach_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/port"
)

// guestPairs makes two guests of each mode on one bridge.
func guestPairs(t *testing.T, n *lanNode, table port.Table) (a, b map[port.Mode]*guest) {
	t.Helper()
	a, b = map[port.Mode]*guest{}, map[port.Mode]*guest{}
	for _, mode := range port.Modes {
		a[mode] = n.guest(t, mode, table)
		b[mode] = n.guest(t, mode, table)
	}
	return a, b
}

// lanEachTable runs the test for every table, on a node of its own with two
// guests of each mode.
func lanEachTable(t *testing.T, mtu int, test func(t *testing.T, n *lanNode, table port.Table, a, b map[port.Mode]*guest)) {
	t.Parallel()
	for _, table := range lanTables {
		t.Run(string(table), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, mtu)
			a, b := guestPairs(t, n, table)
			test(t, n, table, a, b)
		})
	}
}

func TestFramesBetweenGuests(t *testing.T) {
	lanEachTable(t, 1500, func(t *testing.T, n *lanNode, table port.Table, a, b map[port.Mode]*guest) {
		for _, from := range port.Modes {
			for _, to := range port.Modes {
				lanExpect(t, fmt.Sprintf("%s to %s", from, to), a[from].reaches(t, b[to].lanStation), 10)
				lanExpect(t, fmt.Sprintf("%s back to %s", to, from), b[to].reaches(t, a[from].lanStation), 10)
			}
			lanExpect(t, fmt.Sprintf("%s to outside", from), a[from].reaches(t, n.outside), 10)
			lanExpect(t, fmt.Sprintf("outside to %s", from), n.outside.reaches(t, a[from].lanStation), 10)
		}
	})
}

// TestFramesReachSilentGuests: one that has not spoken yet, before anybody can
// have learned its address.
func TestFramesReachSilentGuests(t *testing.T) {
	lanEachTable(t, 1500, func(t *testing.T, n *lanNode, table port.Table, a, b map[port.Mode]*guest) {
		for _, mode := range port.Modes {
			lanExpect(t, fmt.Sprintf("outside to silent %s", mode), n.outside.reaches(t, a[mode].lanStation), 10)
			lanExpect(t, fmt.Sprintf("tap to silent %s", mode), a[port.Tap].reaches(t, b[mode].lanStation), 10)
		}
	})
}

func TestFramesForEverybody(t *testing.T) {
	lanEachTable(t, 1500, func(t *testing.T, n *lanNode, table port.Table, a, b map[port.Mode]*guest) {
		var guests []lanStation
		for _, mode := range port.Modes {
			guests = append(guests, a[mode].lanStation, b[mode].lanStation)
		}
		for _, c := range []struct {
			name, to string
			want     int
		}{
			{"broadcast", "ff:ff:ff:ff:ff:ff", 10},
			{"IPv4 multicast", "01:00:5e:01:02:03", 10},
			{"IPv6 multicast", "33:33:00:00:00:01", 10},
			{"link-local protocol", "01:80:c2:00:00:00", 0}, // STP: for bridges, not through them
			{"unknown unicast", "02:00:00:00:ee:ee", map[bool]int{true: 10, false: 0}[table == port.Kernel]},
		} {
			want := slices.Repeat([]int{c.want}, len(guests))
			if got := n.outside.spread(t, lanMAC(c.to), guests...); !slices.Equal(got, want) {
				t.Errorf("%s from outside: the guests hear %v of 10, want %v", c.name, got, want)
			}
			// One guest's flooded frame goes to the outside in any case.
			want = append(want[1:], map[bool]int{true: 0, false: 10}[c.name == "link-local protocol"])
			if got := guests[0].spread(t, lanMAC(c.to), append(guests[1:], n.outside)...); !slices.Equal(got, want) {
				t.Errorf("%s from a guest: the others and the outside hear %v of 10, want %v", c.name, got, want)
			}
		}
	})
}

// TestFramesFullSize: the largest that the MTU allows, which is without the
// Ethernet header of 14 bytes.
func TestFramesFullSize(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			t.Parallel()
			n := lanNew(t, mtu)
			a, b := guestPairs(t, n, port.Sticky)
			for _, from := range port.Modes {
				for _, to := range port.Modes {
					lanExpect(t, fmt.Sprintf("%s to %s", from, to), a[from].reachesWith(t, b[to].lanStation, mtu+14), 10)
				}
				lanExpect(t, fmt.Sprintf("%s to outside", from), a[from].reachesWith(t, n.outside, mtu+14), 10)
				lanExpect(t, fmt.Sprintf("outside to %s", from), n.outside.reachesWith(t, a[from].lanStation, mtu+14), 10)
			}
		})
	}
}
