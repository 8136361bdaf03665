package fdb

import "testing"

// Whatever answers for the kernel: an entry, or an error.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, msg []byte) {
		found, err := parse(msg)
		if err == nil && found.State == "" {
			t.Errorf("%x is %+v", msg, found)
		}
	})
}
