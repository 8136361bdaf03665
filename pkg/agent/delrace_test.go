package agent

import (
	"log/slog"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// A DEL in the middle of a repair is no more to be told than any other.
func TestDELWhileRepairing(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.HostTap)
	n.site(func(s *attach.Site) {
		k := newKeeper(s, Options{Interval: time.Hour, Log: slog.New(slog.NewJSONHandler(n.log, nil))})
		for round := range 60 {
			n.apply(a)
			p, there, err := k.find(a.PortName())
			if err != nil || !there {
				t.Fatal(there, err)
			}
			removed := make(chan bool)
			go func() {
				time.Sleep(time.Duration(round%20) * 200 * time.Microsecond)
				n.remove(a.ID)
				close(removed)
			}()
			for gone := false; !gone; {
				select {
				case <-removed:
					gone = true
				default:
				}
				_ = s.Host().SetLink(p.Port.Index, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(1400)))
				_ = k.keep(s, p, attach.HostSide)
			}
			k.forget(a.PortName())
		}
	})
	if said := n.log.with("cannot be repaired"); len(said) > 0 {
		t.Errorf("%d times: %+v", len(said), said[0])
	}
}
