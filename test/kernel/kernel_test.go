// Package kernel runs tests of the plugin's packages once more, inside Debian's kernel in a virtual machine: it has what the kernel
// of a developer's machine or a CI runner may lack, such as VLAN filtering, and is the one many nodes run.
//
// The tests themselves stay beside their packages; here is a list of which to run. The package lives in this module because it
// fetches the kernel with package guest.
package kernel

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/test/guest"

	// The tests run in the guest are made of this: go test's cache must know. For their _test.go files see root.
	_ "github.com/tapbridge/tapbridge/pkg/plugin"
)

// suite is some tests of one package.
type suite struct {
	pkg string // its directory in the root module
	run string // which tests, as for go test -run
}

// suites are what runs in the guest: add a line for another package, or another name to its expression.
var suites = []suite{
	{"pkg/attach", "VLAN|TestApplyThenRemoveLeavesNothing|TestGolden|TestSpanningTree|TestWayOfTheRedirect"},
	{"pkg/agent", "VLAN|TestGuestIsFollowed|TestGuestThatIsKnown"},
	{"cmd/tapbridge", "VLAN"},
	{"pkg/guard", "."},
	{"pkg/tap", "TestSELinux"},
}

// modules are what the tests need of a kernel in which everything is one; insmod does not load them on demand.
var modules = []string{
	"bridge", "8021q", "tun", "veth", "ifb", "macvlan",
	"virtio_pci", "virtio_net",
	"sch_ingress", "sch_tbf", "cls_u32", "cls_bpf", "act_mirred", "nf_tables", "nft_meta_bridge",
}

func TestInDebianKernel(t *testing.T) {
	tools := findTools(t)
	m := start(t, tools, image(t, tools))
	for _, s := range suites {
		t.Run(s.pkg, func(t *testing.T) { follow(t, m, s) })
	}
	m.off(t)
}

func findTools(t *testing.T) guest.Tools {
	t.Helper()
	if testing.Short() || os.Getenv("TAPBRIDGE_TEST_QEMU") != "1" {
		nstest.Skip(t, "Debian's kernel in QEMU, and the packages that needs, are for TAPBRIDGE_TEST_QEMU=1 without -short")
	}
	cache, err := os.UserCacheDir()
	must(t, err)
	tools, err := guest.FindTools(t.Context(), filepath.Join(cache, "tapbridge"), t.Logf)
	must(t, err)
	return tools
}

// verdict is how go test -v tells the end of a test or subtest.
var verdict = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) `)

// follow makes each verdict of the suite in the guest the result of a subtest here.
func follow(t *testing.T, m *machine, s suite) {
	tests := 0
	status := m.listen(t, s.pkg, func(line string) {
		v := verdict.FindStringSubmatch(line)
		if v == nil {
			return
		}
		tests++
		t.Run(v[2], func(t *testing.T) {
			if v[1] != "PASS" { // no test may be skipped there
				t.Error(strings.TrimSpace(line))
			}
		})
	})
	if status != 0 {
		t.Errorf("the tests ended with status %d", status)
	}
	if tests == 0 {
		t.Errorf("no test of %q matches %q", s.pkg, s.run)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
