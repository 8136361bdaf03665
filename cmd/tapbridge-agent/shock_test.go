package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// shock is a node on which attachments come, get a VMM, are spoilt, lose their VMM and
// go, while the agent is killed and started again.
type shock struct {
	*testing.T
	host, pod *nstest.NS
	live      map[port.ID]port.Attachment
	vmms      map[port.ID]*nstest.Wire
	gone      int // attachments
	agent     *agentProcess
}

// cycles is how many attachments have to come and go in make faults; otherwise it is a
// quarter of a minute's.
const cycles = 1000

// spoils are done to a port of mode tap. What they undo is repaired, whoever looks
// first.
var spoils = []string{
	"bridge link set dev PORT learning on locked off",
	"bridge fdb del MAC dev PORT master",
	"ip link set PORT nomaster",
	"ip link set PORT down",
	"ip link set PORT mtu 1300",
	"ip link del IFB",
	"tc qdisc del dev PORT ingress",
	"ip link set PORT down; ip link set PORT name other",
}

// TestKilledAtRandom ends with a node as if nothing had happened.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	s := &shock{T: t, host: nstest.New(t), pod: nstest.New(t), live: map[port.ID]port.Attachment{}, vmms: map[port.ID]*nstest.Wire{}}
	nstest.Bridge(t, s.host, "br0", "02:00:00:00:00:01")
	s.host.Run(t, "ip", "link", "set", "br0", "mtu", "1400")
	s.host.Run(t, "ip", "link", "set", "br0", "mtu", "1500") // a bridge keeps an MTU to which it has been changed
	var err error
	s.pod.Do(func() { err = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0) })
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	empty := s.world()
	s.agent = start(t, s.host)
	defer func() { _ = s.agent.Process.Kill() }()
	steps, kills := 0, 0
	for begin := time.Now(); !s.enough(begin); steps++ {
		s.step(steps)
		if rand.IntN(3) == 0 {
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			_ = s.agent.end(t, syscall.SIGKILL)
			s.agent = start(t, s.host)
			kills++
		}
	}
	t.Logf("%d steps, killed %d times, %d attachments have gone, %d are there, %d of them with a VMM", steps, kills, s.gone, len(s.live), len(s.vmms))
	s.arrive()
	for id := range s.live {
		s.remove(id)
	}
	_ = s.agent.end(t, syscall.SIGKILL)
	if diff := nstest.Diff(empty, s.world()); diff != "" {
		t.Errorf("left:\n%s", diff)
	}
}

func (s *shock) enough(begin time.Time) bool {
	if os.Getenv("TAPBRIDGE_FAULTS") == "all" {
		return s.gone >= cycles
	}
	return time.Since(begin) > 15*time.Second
}

// world leaves out the size of segments that a bridge would hand to a network card,
// which is the smallest of its ports' (net/bridge/br_if.c,
// br_set_gso_limits).
func (s *shock) world() string {
	s.Helper()
	var world strings.Builder
	for line := range strings.Lines(nstest.World(s.host, s.pod)) {
		if !strings.HasPrefix(line, "0 link br0 tso_max_s") {
			world.WriteString(line)
		}
	}
	return world.String()
}

// step attaches, starts or stops a VMM, spoils or detaches at random. One port at a
// time bears another name, which is its own affair.
func (s *shock) step(n int) {
	s.Helper()
	a := wish(rand.IntN(6))
	if _, there := s.live[a.ID]; !there {
		s.attach(a)
		return
	}
	switch rand.IntN(4) {
	case 0:
		s.remove(a.ID)
	case 1:
		s.turn(a)
	default:
		s.spoil(a, n)
	}
}

// turn starts the VMM, or stops it.
func (s *shock) turn(a port.Attachment) {
	s.Helper()
	if vmm := s.vmms[a.ID]; vmm != nil {
		delete(s.vmms, a.ID)
		vmm.Close()
		return
	}
	s.vmms[a.ID] = nstest.OpenTap(s.T, s.pod, a.TapName())
	s.speak(s.vmms[a.ID], a)
}

func (s *shock) spoil(a port.Attachment, n int) {
	s.Helper()
	other := fmt.Sprintf("other%d", n)
	commands := strings.NewReplacer("PORT", a.PortName(), "IFB", a.IFBName(), "MAC", a.Guest.String(), "other", other).Replace(spoils[rand.IntN(len(spoils))])
	for command := range strings.SplitSeq(commands, "; ") {
		words := strings.Fields(command)
		_, _ = s.host.Command(words[0], words[1:]...).CombinedOutput() // what an earlier one has spoilt cannot be spoilt again
	}
}

// wish is for the nth of them. The guests of some are followed, and some of those are
// kept to their MAC.
func wish(n int) port.Attachment {
	table := port.Sticky
	if n%3 > 0 {
		table = port.Follow
	}
	return port.Attachment{
		ID:      port.ID{ContainerID: fmt.Sprintf("c%d", n), IfName: fmt.Sprintf("net%d", n)},
		Network: "vms", Bridge: "br0", Mode: port.Tap, Table: table,
		Guest: mac.Addr{0x52, 0x54, 0, 0, 0, byte(n)}, MTU: 1500, PortMTU: 1500,
		Options:   port.Options{Locked: n%3 != 1},
		Access:    tap.Access{Owner: 107, Group: 107},
		FromGuest: shape.Limit{Rate: 60e6, Burst: 1 << 21},
	}
}

func (s *shock) site(f func(*attach.Site) error) {
	s.Helper()
	s.host.Do(func() {
		site, err := attach.OpenPod(s.pod.Path)
		if err == nil {
			defer site.Close()
			err = f(site)
		}
		if err != nil {
			s.Fatal(err)
		}
	})
}

func (s *shock) attach(a port.Attachment) {
	s.Helper()
	s.site(func(site *attach.Site) error {
		br, err := bridge.Find(site.Host(), a.Bridge)
		if err != nil {
			return err
		}
		return site.Apply(a, br)
	})
	s.live[a.ID] = a
}

func (s *shock) remove(id port.ID) {
	s.Helper()
	s.site(func(site *attach.Site) error { return site.Remove(id) })
	delete(s.live, id)
	s.gone++
	if vmm := s.vmms[id]; vmm != nil { // which is no obstacle
		delete(s.vmms, id)
		vmm.Close()
	}
}

// arrive waits until every port is as it should be, and as its VMM has it. What a guest
// has said to a locked port while no agent was there is lost.
func (s *shock) arrive() {
	s.Helper()
	wrong := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if wrong = s.wrong() + s.unfollowed(); wrong == "" {
			return
		}
	}
	s.Errorf("not as it should be:\n%s\nthe agent says:\n%s", wrong, &s.agent.log)
}

func (s *shock) wrong() (all string) {
	s.Helper()
	s.site(func(site *attach.Site) error {
		for _, a := range s.live {
			for _, side := range attach.SidesOf(a) {
				differences, err := site.Compare(attach.Attached{Attachment: a}, side)
				if err != nil {
					return err
				}
				for _, d := range differences {
					all += a.PortName() + ": " + d.Text + "\n"
				}
			}
		}
		return nil
	})
	return all
}

func (s *shock) unfollowed() (all string) {
	s.Helper()
	for id, a := range s.live {
		vmm := s.vmms[id]
		if vmm != nil {
			s.speak(vmm, a)
		}
		if runs := s.stance(a).Running; a.Table == port.Follow && runs != (vmm != nil) {
			all += fmt.Sprintf("%s: running is %v\n", a.PortName(), runs)
		}
	}
	return all
}
