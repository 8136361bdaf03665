package agent

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// asHelper makes the test binary a process that does one thing to a port, so that it
// can be killed: the verb, the pod's path and the port's name.
const asHelper = "TAPBRIDGE_TEST_AS_HELPER"

func TestMain(m *testing.M) {
	if words := strings.Fields(os.Getenv(asHelper)); len(words) == 3 {
		runtime.LockOSThread()
		if err := help(words[0], words[1], words[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func help(verb, pod, name string) error {
	site, err := attach.OpenPod(pod)
	if err != nil {
		return err
	}
	p, there, err := site.Named(name)
	if err != nil || !there {
		return err
	}
	if verb == "remove" {
		return site.Remove(p.ID)
	}
	if verb == "demote" {
		return site.Demote(p)
	}
	done, err := site.Promote(p)
	if err == nil && !done {
		err = fmt.Errorf("%s is promoted already", name)
	}
	return err
}

func (n *node) helper(verb string, a port.Attachment, wrap ...string) *nstest.Cmd {
	command := append(wrap, os.Args[0])
	c := n.host.Command(command[0], command[1:]...)
	c.Env = append(os.Environ(), asHelper+"="+verb+" "+n.pod.Path+" "+a.PortName())
	return c
}

func promotable() port.Attachment {
	a := wish(port.Tap)
	a.Promote = true
	return a
}

func (n *node) promoted(a port.Attachment) (promoted bool) {
	n.Helper()
	n.site(func(s *attach.Site) {
		is, err := s.Promotion(attach.Attached{Attachment: a})
		if err != nil {
			n.Fatal(err)
		}
		promoted = is.OnHost
	})
	return promoted
}

// right fails unless the tap is where it should be, and everything as it should be
// there.
func (n *node) right(a port.Attachment, promoted bool, when string) {
	n.Helper()
	n.await(fmt.Sprintf("%s, promoted is %v and all is right", when, promoted), func() bool {
		return n.promoted(a) == promoted && len(n.wrong(a)) == 0
	})
}

func (n *node) speak(a port.Attachment, guest *nstest.Wire) {
	n.Helper()
	guest.Send(nstest.Frame([]byte{2, 0, 0, 0, 0, 9}, a.Guest.HardwareAddr(), 60, "here I am"))
}

// awaitPromotion makes the guest speak until the agent says that it is promoted.
func (n *node) awaitPromotion(a port.Attachment, guest *nstest.Wire) {
	n.Helper()
	n.await("promotion", func() bool { n.speak(a, guest); return len(n.log.with("promoted")) > 0 })
	n.right(a, true, "the guest speaks")
}

// The tap of a guest becomes the port when it speaks, not when the VMM comes, and is
// in the pod again for the next VMM.
func TestPromotion(t *testing.T) {
	for name, change := range map[string]func(*port.Attachment){
		"sticky":                  func(*port.Attachment) {},
		"sticky, guarded":         func(a *port.Attachment) { a.Guarded = true },
		"follow":                  func(a *port.Attachment) { a.Table, a.Locked = port.Follow, false },
		"follow, locked":          func(a *port.Attachment) { a.Table, a.Locked = port.Follow, true },
		"follow, locked, guarded": func(a *port.Attachment) { a.Table, a.Locked, a.Guarded = port.Follow, true, true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := promotable()
			change(&a)
			comesAndGoes(t, a)
		})
	}
}

// admitted makes the port, and lets a guarded guest use an address.
func (n *node) admitted(a port.Attachment) {
	n.Helper()
	if n.apply(a); a.Guarded {
		n.admit(a)
	}
}

// ruleset is what is in nftables: more than the guards of ports, whatever is left of
// one.
func (n *node) ruleset() string {
	n.Helper()
	return n.host.Run(n.T, "nft", "list", "ruleset")
}

func comesAndGoes(t *testing.T, a port.Attachment) {
	t.Helper()
	n := newNode(t)
	n.admitted(a)
	before := n.world()
	stop := n.keep(false)
	for round := range 2 {
		guest := nstest.OpenTap(t, n.pod, a.TapName())
		nstest.World(n.pod) // until it has carrier
		time.Sleep(interval + interval/2)
		if n.promoted(a) {
			t.Error("promoted before the guest has spoken")
		}
		n.await("promotion", func() bool { n.speak(a, guest); return len(n.log.with("promoted")) > round })
		n.right(a, true, "the guest speaks")
		guest.Close()
		n.right(a, false, "the VMM has gone")
		if a.Table == port.Follow {
			n.await("a line for the entry", func() bool {
				return len(n.log.with("the guest has spoken")) == round+1 && len(n.log.with("the VMM has gone")) == round+1
			})
		}
	}
	n.await("a line for the last move", func() bool { return len(n.log.with("demoted")) > 1 })
	if said := append(n.log.with("promoted"), n.log.with("demoted")...); len(said) != 4 {
		t.Errorf("logged:\n%s", n.log)
	}
	stop()
	if diff := nstest.Diff(before, n.world()); diff != "" {
		t.Errorf("the world is not what it was:\n%s", diff)
	}
}

func TestObserveOnlyPromotesNothing(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), promotable()
	n.apply(a)
	n.keep(true)
	guest := nstest.OpenTap(t, n.pod, a.TapName())
	for range 3 {
		n.speak(a, guest)
		time.Sleep(interval)
	}
	if n.promoted(a) {
		t.Errorf("promoted:\n%s", n.log)
	}
}

// What somebody does to a promoted port is repaired like any other's.
func TestDriftOfAPromotedPort(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), promotable()
	n.apply(a)
	before := n.world()
	guest := nstest.OpenTap(t, n.pod, a.TapName())
	n.keep(false)
	n.awaitPromotion(a, guest)
	nstest.WaitForwarding(t, n.host, a.PromotedName())
	for _, command := range []string{
		"ip link set PROMOTED down",
		"ip link set PROMOTED nomaster",
		"ip link set PROMOTED mtu 1300",
		"ip link set PROMOTED alias mine",
		"bridge link set dev PROMOTED learning on",
		"bridge link set dev PROMOTED locked off isolated off guard off",
		"bridge fdb del 52:54:00:12:34:56 dev PROMOTED master",
		"bridge fdb replace 52:54:00:12:34:56 dev PORT master static sticky",
		"bridge fdb replace 52:54:00:12:34:56 dev up0 master static sticky",
		"tc qdisc del dev PROMOTED root",
		"tc qdisc del dev PROMOTED ingress",
		"ip link del IFB",
		"ip link set PORT up",
		"ip link set PORT alias mine; bridge link set dev PROMOTED learning on", // nothing is told of an alias while the device is down
		"ip link set PORT down; ip link set PORT name other",
		"ip link set PROMOTED down; ip link set PROMOTED name other",
	} {
		command = strings.ReplaceAll(command, "PROMOTED", a.PromotedName())
		logged := len(n.log.with("repaired"))
		n.sh(n.host, named(command, a))
		n.right(a, true, command)
		n.await("a line for "+command, func() bool { return len(n.log.with("repaired")) > logged })
	}
	if said := n.log.with("demoted"); len(said) > 0 {
		t.Errorf("logged as well: %+v", said)
	}
	guest.Close()
	n.right(a, false, "the VMM has gone")
	if diff := nstest.Diff(before, n.world()); diff != "" {
		t.Errorf("the world is not what it was:\n%s", diff)
	}
}

// neighbours are a guest that is promoted once it speaks, and another in the same pod.
func neighbours(t *testing.T) (n *node, a, b port.Attachment) {
	n, a, b = newNode(t), promotable(), wish(port.Tap)
	b.IfName, b.Guest[5] = "net2", 0x57
	n.apply(a)
	n.apply(b)
	return n, a, b
}

// A VMM may change the MAC address of its tap, which takes a neighbour's entry away. It
// has a port no longer then, however short that was, and the neighbour has its entry.
func TestTamperingVMM(t *testing.T) {
	t.Parallel()
	n, a, b := neighbours(t)
	guest := nstest.OpenTap(t, n.pod, a.TapName())
	n.keep(false)
	n.awaitPromotion(a, guest)
	n.host.Run(t, "sh", "-c", fmt.Sprintf("ip link set %[1]s address %[2]s; ip link set %[1]s address %[3]s || true", a.PromotedName(), b.Guest, a.Guest.Derived()))
	n.await("return to the pod", func() bool { return len(n.log.with("demoted")) > 0 })
	n.right(a, false, "the MAC address was changed")
	n.awaitRepair(b, "the neighbour's entry")
	for range 3 {
		n.speak(a, guest)
		time.Sleep(interval)
	}
	if n.promoted(a) {
		t.Error("promoted again")
	}
}

// Nor does it keep the port by taking the names that the tap could have in the pod.
func TestTamperingVMMTakesTheNames(t *testing.T) {
	t.Parallel()
	n, a, b := neighbours(t)
	guest := nstest.OpenTap(t, n.pod, a.TapName())
	defer guest.Close()
	n.keep(false)
	n.awaitPromotion(a, guest)
	n.sh(n.pod, "ip link add "+a.TapName()+" type ifb; ip link add "+a.PromotedName()+" type ifb")
	n.sh(n.host, fmt.Sprintf("ip link set %s address %s", a.PromotedName(), b.Guest))
	n.await("the end of the tap", func() bool { return !n.promoted(a) })
	n.awaitRepair(b, "the neighbour's entry")
	n.await("a report", func() bool { return len(n.log.with("the tap is not put back")) > 0 })
}

// A bridge that goes sends the tap back to the pod: what it lets in would be for the
// node. With the bridge the veth path comes again.
func TestBridgeOfAPromotedPortGoes(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), promotable()
	n.apply(a)
	guest := nstest.OpenTap(t, n.pod, a.TapName())
	n.keep(false)
	n.awaitPromotion(a, guest)
	n.sh(n.host, "ip link del br0")
	n.await("return to the pod", func() bool { return !n.promoted(a) })
	n.bridge()
	n.right(a, false, "with a new bridge")
}

// While somebody else has the tap's name in the pod the tap cannot go back; it does
// when that has gone.
func TestNameInThePodIsTaken(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), promotable()
	n.apply(a)
	guest := nstest.OpenTap(t, n.pod, a.TapName())
	n.keep(false)
	n.awaitPromotion(a, guest)
	n.sh(n.pod, "ip tuntap add dev "+a.TapName()+" mode tap")
	guest.Close()
	n.await("a report", func() bool {
		return len(n.log.with("the tap is not put back"))+len(n.log.with("cannot be repaired")) > 0
	})
	n.sh(n.pod, "ip link del "+a.TapName())
	n.right(a, false, "the name is free")
}

// A process that is killed, or fails, at any of its calls leaves what the next start
// of the agent finishes or takes back, whether or not the VMM is still there.
func TestPromotionIsInterruptedAnywhere(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		nstest.Skip(t, "strace kills at a system call")
	}
	for _, verb := range []string{"promote", "demote"} {
		for _, way := range []string{"signal=SIGKILL", "error=ENOBUFS"} {
			t.Run(verb+" "+way, func(t *testing.T) {
				t.Parallel()
				n, a := newNode(t), promotable()
				a.Guarded = true
				n.admitted(a)
				guest := nstest.OpenTap(t, n.pod, a.TapName())
				stopped := 0
				for call := 1; ; call++ {
					n.position(verb, a)
					out, err := n.helper(verb, a, "strace", "-f", "-o", "/dev/null", "-e", "trace=sendto", "-e", fmt.Sprintf("inject=sendto:%s:when=%d", way, call)).CombinedOutput()
					when := fmt.Sprintf("%s with %s at call %d", verb, way, call)
					if err == nil {
						break
					}
					stopped++
					if verb == "promote" && strings.HasPrefix(way, "error") && (n.promoted(a) || len(n.wrong(a)) > 0) {
						t.Errorf("%s: promoted is %v, wrong is %q: %s", when, n.promoted(a), n.wrong(a), out)
					}
					stop := n.keep(false)
					n.await(when+": all is right", func() bool { return len(n.wrong(a)) == 0 })
					stop()
				}
				t.Logf("%s: %d calls", verb, stopped)
				if stopped < 10 {
					t.Errorf("only %d calls were hit", stopped)
				}
				guest.Close()
				n.keep(false)
				n.right(a, false, "the VMM has gone")
			})
		}
	}
}

// position brings the tap where the verb begins.
func (n *node) position(verb string, a port.Attachment) {
	n.Helper()
	if n.promoted(a) == (verb == "demote") {
		return
	}
	back := map[string]string{"promote": "demote", "demote": "promote"}[verb]
	n.await(back, func() bool {
		out, err := n.helper(back, a).CombinedOutput()
		if err != nil {
			n.Logf("%s: %v: %s", back, err, out)
		}
		return err == nil
	})
}

// TestRandomPromotions ends with a node as if nothing had happened.
func TestRandomPromotions(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("TAPBRIDGE_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(seed, 0))
	n, a := newNode(t), promotable()
	a.Guarded = true
	neighbour := wish(port.Veth)
	neighbour.IfName, neighbour.Guest[5], neighbour.Guarded = "net2", 0x57, true
	n.admitted(neighbour)
	before, rules := n.world(), n.ruleset()
	n.admitted(a)
	var guest *nstest.Wire
	counts := map[string]int{}
	stop := func() {}
	for range 200 {
		move := []string{"promote", "demote", "promote", "demote", "DEL", "agent", "VMM"}[random.IntN(7)]
		counts[move]++
		switch move {
		case "promote", "demote":
			c := n.helper(move, a)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			if random.IntN(2) == 0 {
				time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
				_ = c.Process.Kill()
				counts["kill"]++
			}
			_ = c.Wait()
			if n.promoted(a) {
				counts["then promoted"]++
			}
		case "DEL":
			if guest != nil {
				guest.Close()
			}
			if guest = nil; random.IntN(2) == 0 { // while somebody moves the tap
				c := n.helper([]string{"promote", "demote"}[random.IntN(2)], a)
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
				n.remove(a.ID)
				_ = c.Wait()
			} else {
				n.remove(a.ID)
			}
			stop()
			stop = func() {}
			if diff := nstest.Diff(before, n.world()); diff != "" {
				t.Fatalf("seed %d, after %v DEL leaves:\n%s", seed, counts, diff)
			}
			if diff := cmp.Diff(rules, n.ruleset()); diff != "" {
				t.Fatalf("seed %d, after %v DEL leaves:\n%s", seed, counts, diff)
			}
			n.admitted(a)
			if random.IntN(4) > 0 {
				guest = nstest.OpenTap(t, n.pod, a.TapName())
			}
		case "agent":
			stop()
			if stop = func() {}; random.IntN(2) == 0 {
				stop = n.keep(false)
			}
		case "VMM":
			if guest != nil {
				guest.Close()
				guest = nil
			} else if !n.promoted(a) && len(n.wrong(a)) == 0 {
				guest = nstest.OpenTap(t, n.pod, a.TapName())
			}
		}
	}
	t.Logf("TAPBRIDGE_TEST_SEED=%d: %v", seed, counts)
	if guest != nil {
		guest.Close()
	}
	stop()
	stop = n.keep(false)
	n.right(a, false, "in the end")
	stop()
	n.remove(a.ID)
	if diff := cmp.Diff(rules, n.ruleset()); diff != "" {
		t.Errorf("seed %d leaves:\n%s", seed, diff)
	}
	if diff := nstest.Diff(before, n.world()); diff != "" {
		t.Errorf("seed %d leaves:\n%s", seed, diff)
	}
}
