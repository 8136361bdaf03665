// Package conformance runs the built plugin as a runtime does, in real network
// namespaces, and holds it to the CNI specification and to what real callers
// do: one test a statement, numbered, each with its statement above it.
//
// A test looks at exit code, stdout, stderr and the kernel only. How the plugin
// gets there is the business of the tests beside its packages.
package conformance

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	// What TestMain builds is made of this: go test's cache must know.
	_ "github.com/tapbridge/tapbridge/pkg/plugin"
)

// What TestMain builds.
var (
	pluginDir string // of the others
	tapbridge string // the plugin under test
)

// others are the plugins that ours calls or is chained with: those of the CNI
// project, and Firecracker's.
var others = []string{
	"github.com/containernetworking/plugins/plugins/ipam/host-local",
	"github.com/containernetworking/plugins/plugins/ipam/static",
	"github.com/containernetworking/plugins/plugins/meta/bandwidth",
	"github.com/containernetworking/plugins/plugins/meta/portmap",
	"github.com/containernetworking/plugins/plugins/meta/tuning",
	"github.com/awslabs/tc-redirect-tap/cmd/tc-redirect-tap",
}

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case recorderName:
		os.Exit(record())
	case openerName:
		os.Exit(openTap(os.Args[1], os.Args[2]))
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "conformance")
	if err == nil {
		defer os.RemoveAll(dir)
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	moreAtOnce()
	return m.Run()
}

func build(dir string) error {
	pluginDir, tapbridge = dir, filepath.Join(dir, "tapbridge")
	if err := goBuild(filepath.Join("..", ".."), tapbridge, detector, "./cmd/tapbridge"); err != nil {
		return err
	}
	return goBuild(".", dir, nil, others...)
}

// detector is -race where this test has been built so.
var detector []string

func goBuild(module, target string, flags []string, packages ...string) error {
	cmd := exec.Command("go", slices.Concat([]string{"build", "-ldflags=-s -w", "-o", target}, flags, packages)...)
	cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED="+strconv.Itoa(len(flags)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w\n%s", cmd.Args, err, out)
	}
	return nil
}

// moreAtOnce raises the number of parallel tests unless it was asked for: they
// mostly wait for the kernel, which tells a link's carrier up to a second late.
func moreAtOnce() {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		_ = flag.Set("test.parallel", "8") // the flag is always there
	}
}
