package mac_test

import (
	"encoding/json"
	"maps"
	"os"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/mac"
)

// stricter are the addresses that libvirt takes and we refuse.
var stricter = map[string]string{
	"00:00:00:00:00:00":  "no guest can be answered at it; libvirt 11.3 replaces it, 9.0 fails when the guest starts",
	"52:54:0:12:34:56":   "one digit where the rest of the CNI world, net.ParseMAC, wants two",
	"52:54:00:12:34:56 ": "a blank at the end, not at the start, is a slip and not a spelling",
}

// TestLibvirtsAddresses holds Parse and Derived against what a real libvirt made
// of each input.
func TestLibvirtsAddresses(t *testing.T) {
	unseen := maps.Clone(stricter)
	for _, c := range readLibvirt(t) {
		if c.Input == nil {
			continue // none given: libvirt draws one, we have Stable
		}
		in := *c.Input
		guest, err := mac.Parse(in)
		_, differs := stricter[in]
		switch {
		case differs != (c.Accepted && err != nil):
			t.Errorf("%q: libvirt accepts it: %v; we say: %v; in the list of differences: %v", in, c.Accepted, err, differs)
		case !c.Accepted && err == nil:
			t.Errorf("%q: we accept what libvirt refuses", in)
		case err == nil && (guest.String() != c.Guest || guest.Derived().String() != c.Tap):
			t.Errorf("%q: guest %s, tap %s; with libvirt %s and %s", in, guest, guest.Derived(), c.Guest, c.Tap)
		}
		delete(unseen, in)
	}
	for in := range unseen {
		t.Errorf("%q is not in the recording", in)
	}
}

// recorded is one input and what libvirt made of it.
type recorded struct {
	Input      *string // nil: none given
	Accepted   bool
	Guest, Tap string
}

func readLibvirt(t *testing.T) []recorded {
	t.Helper()
	data, err := os.ReadFile("testdata/libvirt-macs.json")
	if err != nil {
		t.Fatal(err)
	}
	var recording struct{ Cases []recorded }
	if err := json.Unmarshal(data, &recording); err != nil {
		t.Fatal(err)
	}
	if len(recording.Cases) == 0 {
		t.Fatal("the recording is empty")
	}
	return recording.Cases
}
