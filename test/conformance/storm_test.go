package conformance

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

const (
	stormSize    = 200 // attachments that come and go
	stormBridges = 4
	stormWorkers = 12 // calls at once
)

// guestOf is one attachment as its runtime knows it.
type guestOf struct {
	sync.Mutex // a runtime asks one thing at a time of an attachment
	id         env
	conf       conf
	prev       conf         // of the last ADD
	port       string       // of the last ADD
	state      atomic.Int32 // as the runtime would tell
}

const (
	absent  = iota
	live    // ADD has succeeded, or is under way
	unknown // a call was killed: DEL or GC is due
)

// storm is a node with several bridges, and pods in which attachments of every
// mode come and go.
type storm struct {
	*node
	pods   []*nstest.NS
	guests []*guestOf
	counts sync.Map // of what was done, *atomic.Int64 by name
}

func newStorm(t *testing.T) *storm {
	t.Helper()
	s := &storm{node: newNode(t)}
	for i := 1; i < stormBridges; i++ {
		nstest.Bridge(t, s.host, fmt.Sprintf("br%d", i), fmt.Sprintf("02:00:00:00:01:%02x", i))
		nstest.Veth(t, s.host, fmt.Sprintf("uplink%d", i), s.host, fmt.Sprintf("switch%d", i))
		s.host.Run(t, "ip", "link", "set", fmt.Sprintf("uplink%d", i), "master", fmt.Sprintf("br%d", i))
	}
	for range 8 {
		s.pods = append(s.pods, nstest.New(t))
	}
	tables := []conf{{}, libvirt, libvirt.with(spoofChecked, conf{"macspoofchk": true}), libvirt.with(conf{"fdb": "roaming", "bandwidth": conf{"ingressRate": 1e8, "ingressBurst": 1e6, "egressRate": 1e8, "egressBurst": 1e6}})}
	for i := range stormSize {
		g := &guestOf{id: of(fmt.Sprintf("c%d", i), fmt.Sprintf("net%d", i)).with(env{"CNI_NETNS": s.pods[i%len(s.pods)].Path})}
		g.conf = s.conf(tables[i/3%len(tables)], conf{
			"bridge": fmt.Sprintf("br%d", i%stormBridges), "mode": modes[i%len(modes)],
			// Ten pairs want one MAC on one bridge.
			"mac": fmt.Sprintf("52:54:00:00:02:%02x", i%(stormSize-10*stormBridges)),
		})
		s.guests = append(s.guests, g)
	}
	return s
}

func (e env) with(changes env) env {
	e = maps.Clone(e)
	maps.Copy(e, changes)
	return e
}

func (s *storm) count(what string) {
	n, _ := s.counts.LoadOrStore(what, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

// run calls a verb, and kills it after a while if that is not 0. killed is false
// for one that was faster.
func (s *storm) run(c *caller, after time.Duration) (a answer, killed bool) {
	cmd := c.in.Command(c.command[0])
	for key, value := range c.env {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.stdin), &stdout, &stderr
	if err := cmd.Start(); err != nil {
		s.t.Error(err)
		return answer{t: s.t, code: 1}, false
	}
	if after > 0 {
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // too late is fine
		defer timer.Stop()
	}
	_ = cmd.Wait() // the exit code tells
	code := cmd.ProcessState.ExitCode()
	return answer{s.t, c.env["CNI_COMMAND"], code, stdout.String(), stderr.String()}, code < 0
}

// moves are what a worker does with an attachment.
func (s *storm) move(r *rand.Rand) {
	g := s.guests[r.IntN(len(s.guests))]
	var after time.Duration
	if r.IntN(4) == 0 {
		after = time.Duration(1+r.IntN(40)) * time.Millisecond
	}
	dice := r.IntN(20)
	if dice == 0 {
		s.collect(after)
		return
	}
	g.Lock()
	defer g.Unlock()
	switch state := g.state.Load(); {
	case state == unknown, state == live && dice < 10:
		s.del(g, after)
	case state == live:
		s.check(g)
	default:
		s.add(g, after)
	}
}

func (s *storm) add(g *guestOf, after time.Duration) {
	g.state.Store(live)
	a, killed := s.run(s.prepare("ADD", g.conf, g.id), after)
	switch {
	case killed:
		s.count("ADD killed")
		g.state.Store(unknown)
	case a.code == 0:
		s.count("ADD")
		g.prev, g.port = a.prev(), a.result().port().Name
	case strings.Contains(a.stdout, `"code": 11`): // another has the MAC
		s.count("ADD refused")
		g.state.Store(absent)
	default:
		s.t.Errorf("%v: ADD: %s%s", g.id, a.stdout, a.stderr)
		g.state.Store(unknown)
	}
}

func (s *storm) del(g *guestOf, after time.Duration) {
	a, killed := s.run(s.prepare("DEL", g.conf, g.id, nothingKnown), after)
	switch {
	case killed:
		s.count("DEL killed")
		g.state.Store(unknown)
	case a.code == 0:
		s.count("DEL")
		g.state.Store(absent)
	default:
		s.t.Errorf("%v: DEL: %s%s", g.id, a.stdout, a.stderr)
		g.state.Store(unknown)
	}
}

func (s *storm) check(g *guestOf) {
	s.count("CHECK")
	if a, _ := s.run(s.prepare("CHECK", g.conf.with(g.prev), g.id), 0); a.code != 0 {
		s.t.Errorf("%v: CHECK: %s%s", g.id, a.stdout, a.stderr)
	}
}

// collecting keeps two GCs of one network apart, as a runtime does.
var collecting sync.Mutex

// collect sends GC while other calls are under way; those count as valid. What
// was cut off may be listed or not.
func (s *storm) collect(after time.Duration) {
	collecting.Lock()
	defer collecting.Unlock()
	valid := []conf{}
	for _, g := range s.guests {
		if g.TryLock() {
			if g.state.Load() == live {
				valid = append(valid, conf{"containerID": g.id["CNI_CONTAINERID"], "ifname": g.id["CNI_IFNAME"]})
			}
			defer g.Unlock()
		} else {
			valid = append(valid, conf{"containerID": g.id["CNI_CONTAINERID"], "ifname": g.id["CNI_IFNAME"]})
		}
	}
	a, killed := s.run(s.prepare("GC", s.conf(conf{validKey: valid}), noAttachment), after)
	switch {
	case killed:
		s.count("GC killed")
	case a.code == 0:
		s.count("GC")
	default:
		s.t.Errorf("GC: %s%s", a.stdout, a.stderr)
	}
}

// settle lets GC do for what was killed, and then compares ports with live
// attachments, each by CHECK.
func (s *storm) settle() {
	s.t.Helper()
	s.collect(0)
	want := []string{}
	for _, g := range s.guests {
		if g.state.Load() == live {
			want = append(want, g.port)
			s.check(g)
		}
	}
	slices.Sort(want)
	got := []string{}
	for _, name := range s.names(s.host) {
		if strings.HasPrefix(name, "tb") && !strings.HasPrefix(name, "tbi") {
			got = append(got, name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("ports that are not live attachments (-live +ports):\n%s", diff)
	}
	s.t.Logf("%d attachments are live", len(want))
}

// Whatever comes and goes and is killed, the ports are those of the live
// attachments.
func TestStorm(t *testing.T) {
	t.Parallel()
	seed, length := uint64(time.Now().UnixNano()), 15*time.Second
	if text := os.Getenv("TAPBRIDGE_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if every {
		length = 5 * time.Minute
	}
	t.Logf("the same choices again: TAPBRIDGE_TEST_SEED=%d", seed)
	s := newStorm(t)
	before := s.world(s.pods...)
	var done sync.WaitGroup
	end := time.Now().Add(length)
	for worker := range stormWorkers {
		r := rand.New(rand.NewPCG(seed, uint64(worker)))
		done.Go(func() {
			for time.Now().Before(end) {
				s.move(r)
			}
		})
	}
	done.Wait()
	s.settle()
	for _, g := range s.guests {
		s.del(g, 0)
	}
	s.same(before, s.pods...)
	s.noTable()
	s.counts.Range(func(what, n any) bool {
		t.Logf("%s: %d", what, n.(*atomic.Int64).Load())
		return true
	})
}
