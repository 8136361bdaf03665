package attach_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
)

// withoutBPF in the environment makes the tests run where bpf(2) is refused.
const withoutBPF = "TAPBRIDGE_TEST_WITHOUT_BPF"

func TestMain(m *testing.M) {
	if os.Getenv(withoutBPF) != "" {
		if err := nstest.Refuse(unix.SYS_BPF); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// bestWay is how frames should be redirected here.
func bestWay() redirect.Way {
	if os.Getenv(withoutBPF) != "" {
		return redirect.Mirred
	}
	return redirect.BPF
}

// The faster way is taken where there is one, in both directions. Whoever makes
// the other one by hand has a port that is right.
func TestWayOfTheRedirect(t *testing.T) {
	t.Parallel()
	n := lanNew(t, 1500)
	g := n.guest(t, port.Tap, port.Sticky)
	want := bestWay()
	if got := g.inspected(t); got.Redirect == nil || *got.Redirect != (redirect.Pair{Out: want, In: want}) {
		t.Errorf("frames are redirected by %v, want %s", got.Redirect, want)
	}
	for _, line := range []string{"TAP ingress protocol all u32 match u32 0 0 action mirred egress redirect dev POD", "POD ingress protocol all u32 match u32 0 0 action mirred egress redirect dev TAP"} {
		words := strings.Fields(strings.NewReplacer("TAP", g.TapName(), "POD", g.IfName).Replace(line))
		g.pod.Run(t, "tc", "filter", "del", "dev", words[0], "ingress")
		g.pod.Run(t, "tc", append([]string{"filter", "add", "dev"}, words...)...)
	}
	if got := g.inspected(t); len(got.Wrong()) > 0 || got.Redirect == nil || got.Redirect.String() != string(redirect.Mirred) {
		t.Errorf("after a change by hand: %v, %q", got.Redirect, got.Wrong())
	}
	lanExpect(t, n.outside.to("to the guest", g.lanStation, 10), g.to("from the guest", n.outside, 10))
}

// inspected is what `tapbridge ports` knows of the guest.
func (g guest) inspected(t *testing.T) (in attach.Inspected) {
	t.Helper()
	g.node.Do(func() {
		s, err := attach.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		all, err := s.Inspect()
		if err != nil || len(all) != 1 {
			t.Fatalf("%d ports, %v", len(all), err)
		}
		in = all[0]
	})
	return in
}

// Where bpf(2) is refused all goes by mirred, and every promise holds just as well.
func TestWithoutBPF(t *testing.T) {
	t.Parallel()
	if os.Getenv(withoutBPF) != "" {
		return
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^(TestWayOfTheRedirect|TestEachDriftIsNamed|TestApplyThenRemoveLeavesNothing|TestEveryStepFails|TestObserveIsSilent|TestFrames.*)$/^(tap|tap#01)?$")
	cmd.Env = append(os.Environ(), withoutBPF+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n--- PASS: ") < 6 {
		t.Errorf("%v\n%s", err, out)
	}
}
