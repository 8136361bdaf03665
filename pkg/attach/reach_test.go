package attach

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Who has CAP_NET_ADMIN in the user namespace that owns the host's network can delete the
// port from within the pod, and nobody else there, as SECURITY.md has it.
func TestReachOfAPod(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Tap)
	n.mustApply(a)
	n.pod.Do(func() {
		c, err := rtnl.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		inner, err := c.LinkNamed(a.IfName)
		if err != nil {
			t.Fatal(err)
		}
		deletePort := func() error { return c.Behind(inner.NetNsID).Delete(inner.PeerIndex) }
		if err := without(unix.CAP_NET_ADMIN, deletePort); !errors.Is(err, unix.EPERM) {
			t.Errorf("without the capability: %v, want %v", err, unix.EPERM)
		}
		if err := deletePort(); err != nil {
			t.Errorf("with it: %v", err)
		}
	})
	n.site(func(s *Site) {
		if _, there, err := find(s.host, a.PortName()); there || err != nil {
			t.Errorf("the port is there: %v, %v", there, err)
		}
	})
}
