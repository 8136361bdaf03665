package dan

import (
	"encoding/json"
	"testing"
)

// Whatever others have written into the file of a sandbox: it is refused, or what
// is put in is found, and taken out again without a trace.
func FuzzFile(f *testing.F) {
	n := NIC{Sandbox: "4f5c", Tap: "tb0123456789ab", Name: "eth0", MTU: 1500}
	f.Fuzz(func(t *testing.T, content []byte) {
		devices, err := parse(content)
		if err != nil {
			return
		}
		before := devices.count()
		had := devices.find(n.Sandbox, n.Tap) != nil
		if err := devices.put(n); err != nil {
			return
		}
		if again, err := parse(devices.text()); err != nil || again.find(n.Sandbox, n.Tap) == nil {
			t.Errorf("%q with the NIC is %s: %v", content, devices.text(), err)
		}
		if !devices.drop(n.Tap) || !had && devices.count() != before {
			t.Errorf("%q: taken out, %d devices of %d are left", content, devices.count(), before)
		}
		if !json.Valid(devices.text()) {
			t.Errorf("%q has become %q", content, devices.text())
		}
	})
}
