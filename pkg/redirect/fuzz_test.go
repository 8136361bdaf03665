package redirect

import "testing"

// Whatever the kernel answers about filters: it is understood, or an error.
func FuzzParseFilter(f *testing.F) {
	f.Fuzz(func(_ *testing.T, msg []byte) {
		if got, err := parseFilter(msg); err == nil {
			_, _, _ = got.decides(), got.isMirred(1), toDevice(1).is(got)
		}
	})
}
