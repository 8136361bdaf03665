package gateway

import "testing"

// Whatever answers for the kernel, and whatever comment others have written: a
// rule, or an error; and none without hashes is taken for ours.
func FuzzParseRule(f *testing.F) {
	o := Owner{Network: "lan", Port: "tb0123456789ab", IfName: "net1"}
	f.Fuzz(func(t *testing.T, msg []byte) {
		r, err := parseRule(msg)
		if err == nil && r.instance() == o.instance() && r.comment == "" {
			t.Errorf("%x is ours", msg)
		}
	})
}
