package agent

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

// drift is what somebody does to a port.
type drift struct {
	pod     bool   // in the pod
	command string // PORT, POD, TAP, IFB stand for the names
}

var drifts = []drift{
	{false, "ip link set PORT down"},
	{false, "ip link set PORT down; ip link set PORT name other"},
	{false, "ip link set PORT nomaster"},
	{false, "ip link add br9 type bridge; ip link set PORT master br9"},
	{false, "ip link set PORT address 02:00:00:00:00:99"},
	{false, "ip link set PORT mtu 1300"},
	{false, "ip link set PORT alias mine"},
	{false, "bridge link set dev PORT learning on"},
	{false, "bridge link set dev PORT flood on"},
	{false, "bridge link set dev PORT mcast_flood off"},
	{false, "bridge link set dev PORT bcast_flood off"},
	{false, "bridge link set dev PORT isolated off"},
	{false, "bridge link set dev PORT hairpin off"},
	{false, "bridge link set dev PORT locked off"},
	{false, "bridge link set dev PORT state 0"},
	{false, "bridge fdb del 52:54:00:12:34:56 dev PORT master"},
	{false, "bridge fdb replace 52:54:00:12:34:56 dev PORT master static"},
	{false, "bridge fdb replace 52:54:00:12:34:56 dev up0 master static sticky"},
	{false, "tc qdisc replace dev PORT root tbf rate 80mbit burst 2000000 limit 3000000"},
	{false, "tc qdisc del dev PORT root"},
	{false, "tc qdisc del dev PORT ingress"},
	{false, "tc qdisc replace dev IFB root tbf rate 80mbit burst 2000000 limit 3000000"},
	{false, "ip link set IFB down"},
	{false, "ip link del IFB"},
	{true, "ip link set POD down"},
	{true, "ip link set POD address 02:00:00:00:00:99"},
	{true, "ip link set POD alias mine"},
	{true, "ip addr add 10.0.0.1/24 dev POD"},
	{true, "tc qdisc del dev POD ingress"},
	{true, "tc filter del dev TAP ingress"},
	{true, "tc qdisc replace dev TAP root tbf rate 80mbit burst 2000000 limit 3000000"},
	{true, "ip link set TAP down"},
	{true, "ip link set TAP down; ip link set TAP name other"},
	{true, "ip link set TAP address 02:00:00:00:00:99"},
	{true, "ip link set TAP mtu 1300"},
	{true, "ip link set TAP alias mine"},
}

// Whatever is done to a port is repaired because an event told of it, with one line
// in the log; and in the end nothing else is other than it was.
func TestEachDriftIsRepaired(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Tap)
	n.keep(false)
	n.apply(a)
	n.await("the port is known", func() bool { return len(n.wrong(a)) == 0 })
	before := n.world()
	for _, d := range drifts {
		ns := n.host
		if d.pod {
			ns = n.pod
		}
		logged := len(n.log.with("repaired"))
		n.sh(ns, named(d.command, a))
		took := n.awaitRepair(a, d.command)
		n.await("a line for "+d.command, func() bool { return len(n.log.with("repaired")) > logged })
		last := n.log.with("repaired")[logged]
		t.Logf("%6s  %s: %s", took.Round(time.Millisecond), d.command, strings.Join(last.Differences, "; "))
		if last.Port != a.PortName() || last.Container != a.ContainerID || last.Bridge != "br0" || len(last.Differences) == 0 || (last.Side == "pod") != d.pod {
			t.Errorf("%s: logged as %+v", d.command, last)
		}
		if strings.HasSuffix(d.command, "PORT name other") {
			n.await("a line that tells the other name", func() bool {
				return slices.ContainsFunc(n.log.with("repaired")[logged:], func(l line) bool {
					return slices.Contains(l.Differences, named(`name is "other", want "PORT"`, a))
				})
			})
		}
	}
	n.sh(n.host, "ip link del br9")
	if diff := nstest.Diff(before, n.world()); diff != "" {
		t.Errorf("the world is not what it was:\n%s", diff)
	}
	if others := n.log.with("cannot"); len(others) > 0 {
		t.Errorf("logged as well: %+v", others)
	}
}

// What was spoilt while no agent ran is found at its start.
func TestDriftOfEarlierIsRepaired(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.apply(a)
		before := n.world()
		n.sh(n.host, named("bridge link set dev PORT learning on locked off; ip link set PORT alias mine; ip link set PORT nomaster", a))
		n.keep(false)
		n.awaitRepair(a, "everything")
		if diff := nstest.Diff(before, n.world()); diff != "" {
			n.Errorf("the world is not what it was:\n%s", diff)
		}
	})
}

func TestNewBridgeGetsItsPortsBack(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.apply(a)
		n.sh(n.host, "ip link set tb0123456789ab nomaster") // a stranger's, which is not brought back
		before := n.world()
		n.keep(false)
		n.sh(n.host, "ip link del br0")
		n.await("the missing bridge is reported", func() bool { return len(n.log.with("cannot be repaired")) > 0 })
		if said := n.log.with("cannot be repaired")[0]; said.Remedy != "" {
			n.Errorf("the pod is to be deleted: %+v", said)
		}
		n.bridge()
		n.awaitRepair(a, "the membership")
		if diff := nstest.Diff(before, n.world()); diff != "" {
			n.Errorf("the world is not what it was:\n%s", diff)
		}
	})
}

// An ADD and a DEL are nobody's drift.
func TestAttachingIsNoDrift(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.keep(false)
		before := n.world()
		for range 5 {
			n.apply(a)
			time.Sleep(2 * debounce)
			n.remove(a.ID)
		}
		time.Sleep(afterwards + 4*debounce)
		if said := n.log.with(""); len(said) != 1 {
			n.Errorf("logged:\n%s", n.log)
		}
		if diff := nstest.Diff(before, n.world()); diff != "" {
			n.Errorf("left:\n%s", diff)
		}
	})
}

func TestObserveOnlyChangesNothing(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.apply(a)
		n.keep(true)
		n.sh(n.host, named("bridge link set dev PORT learning on; ip link set PORT down; ip link del IFB", a))
		before := n.world()
		host, pod := nstest.Monitor(n.T, n.host), nstest.Monitor(n.T, n.pod)
		n.await("a report", func() bool {
			said := n.log.with("not as it should be")
			return len(said) > 0 && slices.Contains(said[len(said)-1].Differences, "learning is on, want off")
		})
		if events := append(host.Events(), pod.Events()...); len(events) > 0 {
			n.Errorf("changes: %q", events)
		}
		if diff := nstest.Diff(before, n.world()); diff != "" {
			n.Errorf("the world is not what it was:\n%s", diff)
		}
	})
}

// A missing device is reported once, and not made.
func TestMissingDeviceIsReportedOnce(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Tap)
	n.apply(a)
	n.keep(false)
	n.sh(n.pod, named("ip link del TAP", a))
	n.await("a report", func() bool { return len(n.log.with("cannot be repaired")) > 0 })
	for range 5 {
		repaired := len(n.log.with("repaired"))
		n.sh(n.pod, named("ip link set POD down", a)) // seen, and repaired
		n.await("repair", func() bool { return len(n.log.with("repaired")) > repaired })
	}
	if said := n.log.with("cannot be repaired"); len(said) != 1 || said[0].Differences[0] != named(`tap "TAP" is missing`, a) || said[0].Remedy != "delete the pod" {
		t.Errorf("logged %+v", said)
	}
}

// A bridge that passes nothing is not the agent's to change, but every guest of it is cut off.
func TestBridgeThatIsDown(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Tap)
	metrics := NewMetrics(prometheus.NewRegistry())
	n.keepWith(Options{Metrics: metrics})
	n.apply(a)
	counted := func(state string) func() bool {
		return func() bool { return (*metrics.ports.now.Load())[standing{"br0", string(a.Mode), state}] == 1 }
	}
	n.await("the port is right", counted(right))
	for _, c := range []struct{ change, back, says string }{
		{"ip link set br0 down", "ip link set br0 up", "bridge br0 is down"},
		{"ip link set br0 mtu 1300", "ip link set br0 mtu 1500", "bridge br0 has MTU 1300, less than the guest's 1400"},
	} {
		reported, well := len(n.log.with("cannot be repaired")), len(n.log.with("as it should be again"))
		n.sh(n.host, c.change)
		n.await("the port is wrong: "+c.says, counted(wrong))
		if said := n.log.with("cannot be repaired")[reported:]; len(said) != 1 || !slices.Equal(said[0].Differences, []string{c.says}) {
			t.Errorf("%s: logged %+v", c.change, said)
		}
		n.sh(n.host, c.back)
		n.await("the port is right again", counted(right))
		if said := n.log.with("as it should be again"); len(said) != well+1 {
			t.Errorf("%s: logged %+v", c.back, said)
		}
	}
}

// Who has put a device of his own in the place of one in the pod cannot fill the log with
// what is wrong with it.
func TestStrangersDeviceThatChanges(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Tap)
	n.apply(a)
	n.sh(n.pod, named("ip link del TAP; ip link add TAP type ifb", a))
	n.keep(false)
	end := time.Now().Add(3 * time.Second)
	for round := 0; time.Now().Before(end); round++ {
		n.sh(n.pod, named(fmt.Sprintf("ip link set TAP mtu %d", 1300+round), a))
		time.Sleep(debounce + 10*time.Millisecond)
	}
	if said := n.log.with("cannot be repaired"); len(said) > patience+3 {
		t.Errorf("it was said %d times in 3 s", len(said))
	}
}

// Somebody who undoes every repair is told, and left to it more and more; also where he
// writes another value each time.
func TestFightEnds(t *testing.T) {
	t.Parallel()
	for what, disturb := range map[string]func(round int) string{
		"the same value": func(int) string { return "bridge link set dev PORT learning on" },
		"another value":  func(round int) string { return fmt.Sprintf("ip link set PORT mtu %d", 1300+round) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			n, a := newNode(t), wish(port.Veth)
			n.apply(a)
			n.keep(false)
			end := time.Now().Add(3 * time.Second)
			for round := 0; time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if len(n.wrong(a)) == 0 {
					n.sh(n.host, named(disturb(round), a))
					round++
				}
			}
			if len(n.log.with("another program")) == 0 {
				t.Errorf("nothing was said of it:\n%s", n.log)
			}
			if repairs := len(n.log.with("repaired")); repairs < patience || repairs > patience+3 {
				t.Errorf("%d repairs in 3 s, want %d and some after a pause", repairs, patience)
			}
			n.awaitRepair(a, "the last disturbance")
		})
	}
}

// What cannot be repaired, and changes all the time, is not told all the time: root in a pod
// can do so, and with -observe-only whoever changes anything.
func TestReportsEnd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		observeOnly bool
		drift       drift
		back        string
	}{
		"a stranger's tap": {false, drift{true, "ip link del TAP"}, "ip tuntap add TAP mode tap"},
		"observed":         {true, drift{false, "bridge link set dev PORT learning on"}, "bridge link set dev PORT learning off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, a := newNode(t), wish(port.Tap)
			n.apply(a)
			n.keep(c.observeOnly)
			ns := n.host
			if c.drift.pod {
				ns = n.pod
			}
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(2 * debounce) {
				n.sh(ns, named(c.drift.command, a))
				time.Sleep(2 * debounce)
				n.sh(ns, named(c.back, a))
			}
			told := len(n.log.with("cannot be repaired")) + len(n.log.with("not as it should be"))
			if told <= patience || told > patience+3 || len(n.log.with("another program keeps changing")) == 0 {
				t.Errorf("%d reports in 3 s, want more than %d and some after a pause:\n%s", told, patience, n.log)
			}
		})
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	var p pace
	now := time.Now()
	var pauses []time.Duration
	for range patience + 12 {
		pause := p.disturbed([]string{"a"}, now)
		pauses = append(pauses, pause/time.Second)
		now = now.Add(pause + 50*time.Millisecond)
	}
	if want := []time.Duration{0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300}; !slices.Equal(pauses, want) {
		t.Errorf("pauses of %d s, want %d", pauses, want)
	}
	if pause := p.disturbed([]string{"b"}, now); pause != 0 {
		t.Errorf("another field: pause %v", pause)
	}
	now = now.Add(longestPause + 2*calm)
	if pause := p.disturbed([]string{"a"}, now); pause != 0 || len(p.rounds) != 1 {
		t.Errorf("after a calm: pause %v, %v", pause, p.rounds)
	}
}

// What is compared every interval: the host's sides at once, the pods' in portions,
// all of them before the next time.
func TestPodsAreComparedInPortions(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for i := range 3 {
		a := wish(port.Tap)
		a.ID, a.Guest[5] = port.ID{ContainerID: "4f5c", IfName: "net" + strconv.Itoa(i)}, byte(i)
		n.apply(a)
	}
	n.site(func(s *attach.Site) {
		r := prometheus.NewRegistry()
		k := newKeeper(s, Options{Interval: time.Hour, Log: slog.New(slog.NewJSONHandler(n.log, nil)), Metrics: NewMetrics(r)})
		count := func(host, pod float64) {
			t.Helper()
			if now := told(t, r); now["comparisons_total{host}"] != host || now["comparisons_total{pod}"] != pod {
				t.Errorf("%v, want %v comparisons at the host, %v in pods", now, host, pod)
			}
		}
		k.compareAll(true)
		count(3, 3)
		begin := time.Now()
		k.compareAll(false)
		count(6, 3)
		for i, after := range []time.Duration{0, time.Hour / 3, time.Hour * 2 / 3} {
			k.compareDue(begin.Add(after + time.Minute))
			count(6, 3+float64(i)+1)
		}
	})
}

// A record that was overwritten while events were lost is restored like others: the port is
// not among those that have one, and nothing else speaks of it.
func TestRecordLostUnheard(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		a.ToGuest, a.FromGuest = shape.Limit{}, shape.Limit{} // an ifb has the record as well
		n.apply(a)
		before := n.world()
		n.site(func(s *attach.Site) {
			k := newKeeper(s, Options{Interval: time.Hour, Log: slog.New(slog.NewJSONHandler(n.log, nil))})
			k.compareAll(true)
			n.sh(n.host, named("ip link set PORT alias mine; bridge link set dev PORT learning on", a))
			k.compareAll(true)
			k.compareDue(time.Now())
		})
		if diff := nstest.Diff(before, n.world()); diff != "" {
			n.Errorf("the world is not what it was:\n%s", diff)
		}
	})
}

// Pods that nothing leads into are searched for once an interval, not once each.
func TestOneSearchForAllPods(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for i := range 3 {
		a := wish(port.Tap)
		n.pod = nstest.New(t)
		a.ID, a.Guest[5] = port.ID{ContainerID: "4f5c", IfName: "net" + strconv.Itoa(i)}, byte(i)
		n.apply(a)
		if err := unix.Unmount(n.pod.Path, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	n.host.Do(func() {
		s, err := attach.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		k := newKeeper(s, Options{Interval: time.Hour, Log: slog.New(slog.NewJSONHandler(n.log, nil))})
		k.compareAll(false)
		one := k.ports[slices.Sorted(maps.Keys(k.ports))[0]]
		k.compare(one, attach.PodSide, time.Now())
		for name, p := range k.ports {
			if !k.pods.missed[p.Port.NetNsID] {
				t.Errorf("%s would be searched for again", name)
			}
		}
		k.compareAll(false)
		if len(k.pods.missed) > 0 {
			t.Error("nothing is searched for ever again")
		}
	})
}

// A port that goes while all are compared is not spoken of.
func TestPortGoesMeanwhile(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.apply(a)
		n.site(func(s *attach.Site) {
			k := newKeeper(s, Options{Interval: time.Hour, Log: slog.New(slog.NewJSONHandler(n.log, nil))})
			k.compareAll(true)
			look, all, _, err := s.Survey()
			if err != nil || len(all) != 1 {
				n.Fatal(all, err)
			}
			if err := s.Remove(a.ID); err != nil {
				n.Fatal(err)
			}
			k.compareBy(look, all[0], attach.HostSide, time.Now())
			if said := n.log.with(""); len(said) > 0 {
				n.Errorf("logged:\n%s", n.log)
			}
		})
	})
}

// What could not be compared is tried again, and nobody is told to be ready before.
func TestComparisonThatFailsIsTriedAgain(t *testing.T) {
	n := newNode(t)
	a := wish(port.Veth)
	n.apply(a)
	n.host.Do(func() {
		site, err := attach.Open()
		if err != nil {
			t.Fatal(err)
		}
		site.Close()
		k := newKeeper(site, Options{Interval: time.Hour, Log: slog.New(slog.NewJSONHandler(n.log, nil))})
		if k.compareAll(true); k.overdue == nil || !k.podsOverdue || k.Health.ready.Load() {
			t.Errorf("after a failure it is tried again: %v, with pods: %v; ready: %v", k.overdue != nil, k.podsOverdue, k.Health.ready.Load())
		}
		for range 2 {
			site.Close() // a dump that fails takes another socket
			k.compareAll(false)
			site.Close()
			k.add(part{a.PortName(), attach.HostSide}, time.Now())
			k.compareDue(time.Now())
		}
		if said := n.log.with("not compared"); len(said) != 2 || said[0].Port != "" || said[1].Port != a.PortName() || len(n.log.with("compared again")) > 0 {
			t.Errorf("each error is to be said once:\n%s", n.log)
		}
		if k.site, err = attach.Open(); err != nil {
			t.Fatal(err)
		}
		defer k.site.Close()
		if k.compareAll(false); k.overdue != nil || k.podsOverdue || !k.Health.ready.Load() || len(k.ports) != 1 {
			t.Errorf("after a success it is tried again: %v, with pods: %v; ready: %v, %d ports", k.overdue != nil, k.podsOverdue, k.Health.ready.Load(), len(k.ports))
		}
		k.compareAll(false)
		if said := n.log.with("compared again"); len(said) != 1 || len(n.log.with("not compared")) != 2 {
			t.Errorf("that it works again is to be said once:\n%s", n.log)
		}
	})
}
