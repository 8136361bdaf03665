package bridge

import "testing"

// Whatever answers for the kernel: VLANs that can be told, or an error.
func FuzzParseVLANs(f *testing.F) {
	f.Fuzz(func(t *testing.T, msg []byte) {
		all, err := parseVLANs(msg)
		if err == nil {
			_ = NewVLANs(all...)
		}
	})
}
