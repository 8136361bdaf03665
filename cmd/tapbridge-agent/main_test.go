package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
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

// asAgent makes the test binary the agent itself.
const asAgent = "TAPBRIDGE_TEST_AS_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(asAgent) != "" {
		main()
	}
	os.Exit(m.Run())
}

// agentProcess is the agent in a namespace.
type agentProcess struct {
	*nstest.Cmd
	log text
}

// text can be read while it is written.
type text struct {
	mu  sync.Mutex
	all strings.Builder
}

func (t *text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.Write(b)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.String()
}

func start(t testing.TB, ns *nstest.NS, args ...string) *agentProcess {
	t.Helper()
	p := &agentProcess{Cmd: ns.Command(os.Args[0], args...)}
	p.Env = append(os.Environ(), asAgent+"=1")
	p.Stderr = &p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// awaitStart waits until everything has been compared once.
func (p *agentProcess) awaitStart(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(p.log.String(), "started"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it has not started: %s", &p.log)
		}
	}
}

// end signals the process and returns how it has ended.
func (p *agentProcess) end(t testing.TB, s os.Signal) error {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	return p.Wait()
}

func TestSIGTERMEndsIt(t *testing.T) {
	t.Parallel()
	p := start(t, nstest.New(t), "-log-format", "json")
	p.awaitStart(t)
	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("%v: %s", err, &p.log)
	}
	if !strings.Contains(p.log.String(), `"msg":"ended"`) {
		t.Errorf("log %s", &p.log)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-version"}, ended, "tapbridge-agent unknown\n"},
		{[]string{"-h"}, ended, "-observe-only"},
		{[]string{"-interval", "10ms"}, misused, "interval 10ms: want at least 1s"},
		{[]string{"-log-format", "xml"}, misused, `log-format "xml": want text or json`},
		{[]string{"br0"}, misused, `arguments ["br0"]: want flags only`},
		{[]string{"-repair"}, misused, "flag provided but not defined: -repair"},
	} {
		var out bytes.Buffer
		if code := run(context.Background(), c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q: exit code %d, want %d: %s", c.args, code, c.code, out.String())
		}
	}
}

// shock is a node on which attachments come, are spoilt and go, while the agent is
// killed and started again.
type shock struct {
	*testing.T
	host, pod *nstest.NS
	live      map[port.ID]port.Attachment
	agent     *agentProcess
}

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
	s := &shock{T: t, host: nstest.New(t), pod: nstest.New(t), live: map[port.ID]port.Attachment{}}
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
	cycles, kills := 0, 0
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); cycles++ {
		s.step(cycles)
		if rand.IntN(3) == 0 {
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			_ = s.agent.end(t, syscall.SIGKILL)
			s.agent = start(t, s.host)
			kills++
		}
	}
	t.Logf("%d steps, killed %d times, %d attachments are there", cycles, kills, len(s.live))
	s.arrive()
	for id := range s.live {
		s.remove(id)
	}
	_ = s.agent.end(t, syscall.SIGKILL)
	if diff := nstest.Diff(empty, s.world()); diff != "" {
		t.Errorf("left:\n%s", diff)
	}
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

// step attaches, spoils or detaches at random. One port at a time bears another
// name, which is its own affair.
func (s *shock) step(n int) {
	s.Helper()
	a := wish(rand.IntN(6))
	if _, there := s.live[a.ID]; !there {
		s.attach(a)
		return
	}
	if rand.IntN(3) == 0 {
		s.remove(a.ID)
		return
	}
	other := fmt.Sprintf("other%d", n)
	commands := strings.NewReplacer("PORT", a.PortName(), "IFB", a.IFBName(), "MAC", a.Guest.String(), "other", other).Replace(spoils[rand.IntN(len(spoils))])
	for command := range strings.SplitSeq(commands, "; ") {
		words := strings.Fields(command)
		_, _ = s.host.Command(words[0], words[1:]...).CombinedOutput() // what an earlier one has spoilt cannot be spoilt again
	}
}

func wish(n int) port.Attachment {
	return port.Attachment{
		ID:      port.ID{ContainerID: fmt.Sprintf("c%d", n), IfName: fmt.Sprintf("net%d", n)},
		Network: "vms", Bridge: "br0", Mode: port.Tap, Table: port.Sticky,
		Guest: mac.Addr{0x52, 0x54, 0, 0, 0, byte(n)}, MTU: 1500, PortMTU: 1500,
		Options:   port.Options{Locked: true},
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
}

// arrive waits until every port is as it should be.
func (s *shock) arrive() {
	s.Helper()
	wrong := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if wrong = s.wrong(); wrong == "" {
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
					all += a.PortName() + ": " + d + "\n"
				}
			}
		}
		return nil
	})
	return all
}
