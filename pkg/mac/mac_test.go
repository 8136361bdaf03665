package mac_test

import (
	"errors"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/mac"
)

func TestParse(t *testing.T) {
	for _, s := range []string{"52:54:00:12:34:56", "FE:54:00:aa:BB:cc", "02:00:00:00:00:00"} {
		if _, err := mac.Parse(s); err != nil {
			t.Errorf("Parse(%q): %v", s, err)
		}
	}
	for _, s := range []string{
		"", "00:00:00:00:00:00", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "52-54-00-12-34-56", "5254.0012.3456",
		"525400123456", "52:54:0:12:34:56", "52:54:00:12:34", "52:54:00:12:34:56:78:9a", " 52:54:00:12:34:56", "52:54:00:12:34:zz",
	} {
		if a, err := mac.Parse(s); !errors.Is(err, mac.ErrInvalid) {
			t.Errorf("Parse(%q) = %v, %v; want ErrInvalid", s, a, err)
		}
	}
}

func TestDerived(t *testing.T) {
	for guest, want := range map[string]string{
		"52:54:00:12:34:56": "fe:54:00:12:34:56",
		"fe:54:00:12:34:56": "fa:54:00:12:34:56",
		"fa:54:00:12:34:56": "fe:54:00:12:34:56",
	} {
		a, err := mac.Parse(guest)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Derived().String(); got != want {
			t.Errorf("derived of %s is %s, want %s", guest, got, want)
		}
	}
}

func TestStable(t *testing.T) {
	seen := map[mac.Addr]bool{}
	for _, container := range []string{"a", "b", "c"} {
		for i := range 1000 {
			ifName := string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
			a := mac.Stable(container, ifName)
			if a != mac.Stable(container, ifName) {
				t.Fatalf("%s differs from call to call", a)
			}
			if a[0]&3 != 2 || a[0] == 0xfe || a[0] == 0xfa {
				t.Fatalf("%s is not a locally administered unicast address outside of the derived ones", a)
			}
			if seen[a] {
				t.Fatalf("%s twice", a)
			}
			seen[a] = true
		}
	}
	if mac.Stable("ab", "c") == mac.Stable("a", "bc") {
		t.Fatal("container id and interface name run together")
	}
}
