package nstest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var (
	macA      = mac("02:00:00:00:00:0a")
	macB      = mac("02:00:00:00:00:0b")
	bridgeMAC = "02:00:00:00:00:01"
)

func mac(s string) net.HardwareAddr {
	parsed, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return parsed
}

// ip runs one or more ip commands, a line each.
func ip(t *testing.T, ns *NS, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		if words := strings.Fields(line); len(words) > 0 {
			ns.Run(t, words[0], words[1:]...)
		}
	}
}

// tapOn makes a tap that is a port of br0. Its IPv6 is off: it would get an
// address with its first carrier, and keep it.
func tapOn(t *testing.T, ns *NS, name string) {
	t.Helper()
	ip(t, ns, "ip tuntap add "+name+" mode tap\n ip link set dev "+name+" master br0")
	raise(t, ns, name)
}

func netnsOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: not within 5 s", what)
}

func TestNamespacesAreSeparate(t *testing.T) {
	t.Parallel()
	a, b := New(t), New(t)
	home := netnsOf(t, "/proc/thread-self/ns/net")
	if inside := netnsOf(t, a.Path); inside == home || inside == netnsOf(t, b.Path) {
		t.Fatalf("%q is not a namespace of its own", a.Path)
	}
	ip(t, a, "ip link add only type veth peer name peer")
	if _, err := a.Handle().LinkByName("only"); err != nil {
		t.Errorf("link is not where it was made: %v", err)
	}
	if _, err := b.Handle().LinkByName("only"); err == nil {
		t.Error("link is visible in the other namespace")
	}
	if !strings.Contains(a.Run(t, "ip", "link", "show", "lo"), "UP") {
		t.Error("loopback is down")
	}
}

func TestDoRunsInsideAndComesHome(t *testing.T) {
	t.Parallel()
	a, b := New(t), New(t)
	runtime.LockOSThread() // so that the thread looked at is the one that went
	defer runtime.UnlockOSThread()
	here := func() uint64 { return netnsOf(t, "/proc/thread-self/ns/net") }
	home := here()
	var outer, inner, again uint64
	a.Do(func() {
		outer = here()
		b.Do(func() { inner = here() })
		again = here()
	})
	want := []uint64{netnsOf(t, a.Path), netnsOf(t, b.Path), netnsOf(t, a.Path), home}
	if diff := cmp.Diff(want, []uint64{outer, inner, again, here()}); diff != "" {
		t.Errorf("namespaces visited (-want +got):\n%s", diff)
	}
}

func TestDoComesHomeFromGoexit(t *testing.T) {
	t.Parallel()
	ns := New(t)
	home := netnsOf(t, "/proc/thread-self/ns/net")
	after := make(chan uint64)
	go func() {
		defer func() { after <- netnsOf(t, "/proc/thread-self/ns/net") }()
		runtime.LockOSThread()
		ns.Do(runtime.Goexit) // what t.Fatal does
	}()
	if got := <-after; got != home {
		t.Errorf("thread is in namespace %d after Goexit, want %d", got, home)
	}
}

func TestNamespaceVanishes(t *testing.T) {
	t.Parallel()
	stays := New(t)
	var path string
	t.Run("inner", func(t *testing.T) {
		ns := New(t)
		path = ns.Path
		Veth(t, stays, "v0", ns, "v0")
		OpenLink(t, ns, "v0")
		Monitor(t, ns)
		ip(t, ns, "ip tuntap add t0 mode tap")
		OpenTap(t, ns, "t0")
		_ = World(ns)
	})
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("%q is still there: %v", path, err)
	}
	eventually(t, "the end of the veth outside goes with the namespace", func() bool {
		_, err := stays.Handle().LinkByName("v0")
		return err != nil
	})
}

func TestCommandStartsInside(t *testing.T) {
	t.Parallel()
	ns := New(t)
	want := fmt.Sprintf("net:[%d]\n", netnsOf(t, ns.Path))
	ways := map[string]func(*Cmd) ([]byte, error){
		"Output":         (*Cmd).Output,
		"CombinedOutput": (*Cmd).CombinedOutput,
		"Run": func(c *Cmd) ([]byte, error) {
			var out bytes.Buffer
			c.Stdout = &out
			err := c.Run()
			return out.Bytes(), err
		},
	}
	for name, way := range ways {
		if got, err := way(ns.Command("readlink", "/proc/self/ns/net")); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}

// verdict records how a test would have ended.
type verdict struct {
	testing.TB
	ended string
}

func (v *verdict) Helper()               {}
func (v *verdict) Skipf(string, ...any)  { v.ended = "skipped" }
func (v *verdict) Fatalf(string, ...any) { v.ended = "failed"; runtime.Goexit() }

func TestSkip(t *testing.T) {
	for require, want := range map[string]string{"": "skipped", "all": "failed"} {
		t.Setenv("TAPBRIDGE_TEST_REQUIRE", require)
		v, done := &verdict{}, make(chan struct{})
		go func() {
			defer close(done)
			Skip(v, "no %s", "reason")
		}()
		if <-done; v.ended != want {
			t.Errorf("TAPBRIDGE_TEST_REQUIRE=%q: %s, want %s", require, v.ended, want)
		}
	}
}
