package redirect_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/redirect"
)

// However many filters somebody in the pod puts behind ours, they are not all read.
func TestManyFilters(t *testing.T) {
	ns, c := pod(t)
	tap, inner := index(t, c, "tap1"), index(t, c, "net1")
	if err := redirect.Connect(c, tap, inner); err != nil {
		t.Fatal(err)
	}
	const many = 2000
	list := filepath.Join(t.TempDir(), "batch")
	another := "filter add dev tap1 ingress protocol all prio 2 u32 match u32 0 0 action mirred egress redirect dev net1\n"
	if err := os.WriteFile(list, []byte(strings.Repeat(another, many)), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Run(t, "tc", "-batch", list)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	pair, err := redirect.Observe(c, tap, inner)
	runtime.ReadMemStats(&after)
	if err != nil || !pair.Works() {
		t.Errorf("observed %v, error %v", pair, err)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 100*many {
		t.Errorf("that took %d bytes, as if all were read", taken)
	}
	if _, err := c.Links(); err != nil {
		t.Errorf("the next dump: %v", err)
	}
}
