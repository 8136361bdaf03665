package attach_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/pkg/agent"
)

// follow runs the node agent on n until the test ends.
func (n *lanNode) follow(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	o := agent.Options{Interval: time.Hour, Log: slog.New(slog.DiscardHandler)}
	go n.Do(func() { ended <- agent.Run(ctx, o) })
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("agent: %v", err)
		}
	})
}

// awaitEntries waits until the VM has its entry where it should, and fails where
// both nodes have one.
func (m *lanMigration) awaitEntries(source, target bool) {
	m.Helper()
	lanUntil(m, "the VM's entry is on one node", func() bool {
		return m.source.hasEntry(m, m.vm) == source && m.target.hasEntry(m, m.vm) == target
	})
}

// hasEntry reports whether the VM has an entry on its own port there.
func (n *lanNode) hasEntry(t testing.TB, vm *guest) bool {
	t.Helper()
	for entry := range strings.Lines(n.Run(t, "bridge", "fdb", "show", "br", lanBridge)) {
		if strings.HasPrefix(entry, vm.Guest.String()) && strings.Contains(entry, "static") {
			return !strings.Contains(entry, "dev uplink")
		}
	}
	return false
}
