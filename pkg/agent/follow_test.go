package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// A guest gets its entry with its first frame, and has it until its VMM goes; and so
// again and again. No frame is lost but, where the port is locked, the first.
func TestGuestIsFollowed(t *testing.T) {
	eachFollowed(t, func(g *followed) {
		stop := g.keep(false)
		g.start()
		const rounds = 3
		for range rounds {
			g.boot()
			if g.a.Locked {
				g.awaitEar()
				g.speak()
				g.awaitRunning(true)
			}
			if got := g.arrives(g.vmm, g.far, g.frame(g.a.Guest)); got != 10 {
				g.Errorf("%d of 10 frames of the guest arrived", got)
			}
			g.awaitRunning(true)
			toGuest := nstest.Frame(g.a.Guest.HardwareAddr(), lanHost.HardwareAddr(), 0, "to the guest")
			if got := g.arrives(g.far, g.vmm, toGuest); got != 10 {
				g.Errorf("%d of 10 frames to the guest arrived", got)
			}
			g.vmm.Close()
			g.awaitRunning(false)
		}
		stop()
		if e := g.log.with("ended"); len(e) != 1 || e[0].Activations != rounds || e[0].Withdrawals != rounds || e[0].Foreign != 0 {
			g.Errorf("the agent counts %+v, want %d activations", e, rounds)
		}
		if others := append(g.log.with("repaired"), g.log.with("cannot")...); len(others) > 0 {
			g.Errorf("logged as well: %+v", others)
		}
	})
}

// DEL finds a guest in either state, with its VMM still there, and leaves nothing; an
// attachment of the same name after it is followed as if it were the first.
func TestDELOfAGuestThatIsFollowed(t *testing.T) {
	eachFollowed(t, func(g *followed) {
		g.keep(false)
		before := g.world()
		for _, running := range []bool{true, false, true} {
			g.start()
			g.boot()
			if running {
				g.speak()
				g.awaitRunning(true)
			}
			g.remove(g.a.ID)
			g.vmm.Close()
			g.await("the world as before", func() bool { return g.world() == before })
		}
	})
}

var (
	lanHost  = mac.Addr{2, 0, 0, 0, 0, 0x77}
	stranger = mac.Addr{2, 0, 0, 0, 0, 0x99}
)

// Other addresses than the guest's get no entry that stays, are counted, and pass a
// locked port neither before nor after.
func TestForeignAddressIsNotAdmitted(t *testing.T) {
	eachFollowed(t, func(g *followed) {
		stop := g.keep(false)
		g.start()
		g.boot()
		pass := 10
		if g.a.Locked {
			pass = 0
		}
		if got := g.arrives(g.vmm, g.far, g.frame(stranger)); got != pass {
			g.Errorf("while the port waits %d of 10 frames of a stranger passed, want %d", got, pass)
		}
		g.await("a warning", func() bool { return len(g.log.with("another address")) == 1 })
		g.speak()
		g.awaitRunning(true)
		if got := g.arrives(g.vmm, g.far, g.frame(stranger)); got != pass {
			g.Errorf("while the guest runs %d of 10 frames of a stranger passed, want %d", got, pass)
		}
		if entries := g.host.Run(g.T, "bridge", "fdb", "show", "br", "br0"); strings.Contains(entries, stranger.String()) {
			g.Errorf("the bridge knows the stranger:\n%s", entries)
		}
		stop()
		if e := g.log.with("ended"); len(e) != 1 || e[0].Activations != 1 || e[0].Foreign != 1 {
			g.Errorf("the agent counts %+v, want one stranger", e)
		}
	})
}

// A guest that makes addresses up is heard all the same, and soon not listened to
// about them any more.
func TestGuestCannotKeepTheAgentBusy(t *testing.T) {
	t.Parallel()
	g := newFollowed(t, port.Tap, true)
	stop := g.keep(false)
	g.start()
	g.boot()
	for i := range 4 * mostForeign {
		g.vmm.Send(g.frame(mac.Addr{2, 0, 0, 1, 0, byte(i)}))
	}
	g.speak()
	g.await("the guest is heard", func() bool {
		g.speak()
		return g.stance().Running
	})
	stop()
	if e := g.log.with("ended"); len(e) != 1 || e[0].Foreign != mostForeign {
		t.Errorf("the agent counts %+v, want %d strangers", e, mostForeign)
	}
}

// In a live migration the bridge knows the guest from its uplink when it begins to
// speak on the port.
func TestGuestThatIsKnownFromTheUplink(t *testing.T) {
	eachFollowed(t, func(g *followed) {
		g.keep(false)
		g.start()
		g.boot()
		g.far.Send(g.frame(g.a.Guest))
		g.await("the bridge has learned the guest on the uplink", func() bool { return strings.Contains(g.entry(), "dev up0") })
		time.Sleep(2 * debounce) // the agent could act on that
		if wrong := g.wrong(g.a); g.stance().Running || len(wrong) > 0 {
			g.Errorf("a guest on the uplink: %+v, %q", g.stance(), wrong)
		}
		g.speak()
		g.awaitRunning(true)
	})
}

func (g *followed) entry() string {
	g.Helper()
	for line := range strings.Lines(g.host.Run(g.T, "bridge", "fdb", "show", "br", "br0")) {
		if strings.HasPrefix(line, g.a.Guest.String()) {
			return line
		}
	}
	return ""
}

// A VMM that comes and goes as fast as it likes does not fill the log.
func TestTurnsAreNotAllTold(t *testing.T) {
	t.Parallel()
	g := newFollowed(t, port.Tap, false)
	g.keep(false)
	g.start()
	const rounds = 20
	for range rounds {
		g.boot()
		g.speak()
		g.awaitRunning(true)
		g.vmm.Close()
		g.awaitRunning(false)
	}
	told := len(g.log.with("the guest has spoken")) + len(g.log.with("the VMM has gone"))
	if told <= patience || told > rounds {
		t.Errorf("%d turns are told of %d, want some more than %d", told, 2*rounds, patience)
	}
}

// An agent that is started again goes on from what the kernel has.
func TestFollowingResumes(t *testing.T) {
	eachFollowed(t, func(g *followed) {
		g.apply(g.a)
		g.boot()
		g.speak() // nobody follows
		if !g.a.Locked {
			g.await("the kernel has learned the guest", func() bool { return g.stance().Heard })
		}
		stop := g.keep(false)
		if g.a.Locked {
			g.known()
			g.speak()
		}
		g.awaitRunning(true)
		stop()
		g.vmm.Close()
		if !g.stance().Running {
			g.Error("without an agent the entry has gone with the carrier")
		}
		g.log.clear()
		g.keep(false)
		g.awaitRunning(false)
	})
}

// What is between the two states, such as after a kill, is taken to one of them.
func TestHalfAStateIsRepaired(t *testing.T) {
	eachFollowed(t, func(g *followed) {
		g.keep(false)
		g.start()
		for _, running := range []bool{false, true} {
			if running {
				g.boot()
				g.speak()
				g.awaitRunning(true)
			}
			before := g.world()
			for _, command := range []string{
				"bridge link set dev PORT flood on",
				"bridge link set dev PORT learning on flood on",
				"bridge fdb replace 52:54:00:12:34:56 dev up0 master static sticky",
				"bridge link set dev PORT learning off",
				"bridge fdb replace 52:54:00:12:34:56 dev PORT master static",
				"bridge fdb del 52:54:00:12:34:56 dev PORT master",
			} {
				if running && strings.Contains(command, "fdb") && !strings.Contains(command, "PORT master static") || !running && strings.HasPrefix(command, "bridge fdb del") {
					continue // the first takes the port to the other state, see below
				}
				g.sh(g.host, named(command, g.a))
				g.await("repair of "+command, func() bool { return g.world() == before })
			}
		}
		g.sh(g.host, named("bridge fdb del 52:54:00:12:34:56 dev PORT master", g.a))
		g.await("a port that waits again", func() bool { return !g.stance().Running && len(g.wrong(g.a)) == 0 })
		if g.a.Locked {
			g.known()
		}
		g.speak()
		g.awaitRunning(true)
	})
}

// On a VLAN-aware bridge the guest has an entry in each of its VLANs, whichever it
// speaks in first.
func TestGuestIsFollowedInItsVLANs(t *testing.T) {
	nstest.NeedsVLANs(t)
	eachFollowed(t, func(g *followed) {
		g.sh(g.host, "ip link set br0 type bridge vlan_filtering 1")
		g.a.VLANs = "42PU 100-101"
		g.keep(false)
		g.start()
		for _, tag := range []byte{0, 101} {
			g.boot()
			frame := g.frame(g.a.Guest)
			if tag != 0 {
				frame = slices.Concat(frame[:12], []byte{0x81, 0, 0, tag}, frame[12:])
			}
			g.vmm.Send(frame)
			g.awaitRunning(true)
			if got := strings.Count(g.host.Run(g.T, "bridge", "fdb", "show", "br", "br0"), g.a.Guest.String()); got != 4 {
				g.Errorf("%d entries, want one for each VLAN and one for none", got)
			}
			g.vmm.Close()
			g.awaitRunning(false)
			if e := g.entry(); e != "" {
				g.Errorf("left: %s", e)
			}
		}
	})
}

// With -observe-only nobody is followed, and nobody is told so.
func TestObserverDoesNotFollow(t *testing.T) {
	t.Parallel()
	g := newFollowed(t, port.Tap, false)
	g.followedBy(false)
	stop := g.keep(true)
	g.apply(g.a)
	g.boot()
	g.speak()
	g.await("the kernel has learned the guest", func() bool { return g.stance().Heard })
	time.Sleep(2 * debounce)
	if g.stance().Running {
		t.Error("the guest has its entry")
	}
	g.followedBy(false)
	stop()
	g.log.clear()
	stop = g.keep(false)
	g.followedBy(true)
	g.awaitRunning(true)
	stop()
	g.followedBy(false)
}

// Two agents would do everything twice: the second one says so.
func TestSecondAgentIsTold(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	const told = "another agent keeps the ports"
	n.keep(false)
	if said := n.log.with(told); len(said) > 0 {
		t.Errorf("the only one says %v", said)
	}
	n.log.clear()
	n.keep(false)
	if said := n.log.with(told); len(said) != 1 {
		t.Errorf("the second one says %q %d times, want once", told, len(said))
	}
}

func (g *followed) followedBy(want bool) {
	g.Helper()
	var got bool
	var err error
	g.host.Do(func() { got, err = attach.AgentRuns() })
	if err != nil || got != want {
		g.Errorf("somebody follows: %v, %v, want %v", got, err, want)
	}
}

// TestFirstFrameToEntry prints how long a guest waits for its entry. It runs before
// those that run at the same time.
func TestFirstFrameToEntry(t *testing.T) {
	for _, mode := range []port.Mode{port.Tap, port.HostTap} {
		for _, locked := range []bool{false, true} {
			g := newFollowed(t, mode, locked)
			stop := g.keep(false)
			g.start()
			var took []time.Duration
			for range 30 {
				g.boot()
				if locked {
					g.known()
				}
				took = append(took, g.firstFrame())
				g.vmm.Close()
				g.awaitRunning(false)
			}
			stop()
			slices.Sort(took)
			t.Logf("%s, locked %v: median %v, longest %v", mode, locked, took[len(took)/2], took[len(took)-1])
		}
	}
}

func (g *followed) firstFrame() (took time.Duration) {
	g.Helper()
	g.site(func(s *attach.Site) {
		p, _, err := s.Named(g.a.PortName())
		if err != nil {
			g.Fatal(err)
		}
		start := time.Now()
		g.speak()
		for st := (attach.Stance{}); !st.Running && time.Since(start) < 10*time.Second; {
			if st, err = s.Stance(p); err != nil {
				g.Fatal(err)
			}
		}
		took = time.Since(start)
	})
	return took
}

func (l *lines) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = nil
}
