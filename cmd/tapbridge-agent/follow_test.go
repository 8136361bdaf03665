package main

import (
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// A guest whose VMM comes and goes, while the agent is killed at any moment, has its
// entry in the end if it runs; and an agent that is killed is seen to be gone.
func TestKilledWhileItFollows(t *testing.T) {
	t.Parallel()
	for _, locked := range []bool{false, true} {
		s := &shock{T: t, host: nstest.New(t), pod: nstest.New(t), live: map[port.ID]port.Attachment{}}
		nstest.Bridge(t, s.host, "br0", "02:00:00:00:00:01")
		a := wish(1)
		a.Table, a.Locked = port.Follow, locked
		s.attach(a)
		s.agent = start(t, s.host)
		defer func() { _ = s.agent.Process.Kill() }()
		for range 15 {
			s.await("an agent", s.followed)
			vmm := nstest.OpenTap(t, s.pod, a.TapName())
			for range rand.IntN(4) {
				s.speak(vmm, a)
				time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
			}
			_ = s.agent.end(t, syscall.SIGKILL)
			if s.followed() {
				t.Error("an agent that was killed still follows")
			}
			runs := rand.IntN(2) == 0
			if !runs {
				vmm.Close()
			}
			s.agent = start(t, s.host)
			s.await("the guest's state", func() bool {
				if runs {
					s.speak(vmm, a)
				}
				return s.stance(a).Running == runs && s.wrong() == ""
			})
			vmm.Close()
			s.await("a port that waits", func() bool { return !s.stance(a).Running && s.wrong() == "" })
		}
		s.remove(a.ID)
		_ = s.agent.end(t, syscall.SIGKILL)
	}
}

func (s *shock) followed() (is bool) {
	s.Helper()
	s.site(func(*attach.Site) (err error) { is, err = attach.AgentRuns(); return err })
	return is
}

func (s *shock) stance(a port.Attachment) (st attach.Stance) {
	s.Helper()
	s.site(func(site *attach.Site) error {
		p, there, err := site.Named(a.PortName())
		if err == nil && there {
			st, err = site.Stance(p)
		}
		return err
	})
	return st
}

func (s *shock) speak(vmm *nstest.Wire, a port.Attachment) {
	s.Helper()
	vmm.Send(nstest.Frame(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, a.Guest.HardwareAddr(), 0, "guest"))
}

func (s *shock) await(what string, ok func() bool) {
	s.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	s.Fatalf("not within 20 s: %s; the agent says:\n%s", what, &s.agent.log)
}
