package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	// What is built and measured is made of this: go test's cache must know.
	_ "github.com/tapbridge/tapbridge/pkg/plugin"
)

// extent is how much is measured.
type extent struct {
	name string

	rounds   int   // of processes
	sizes    []int // of the bridge, in ports
	few      int   // ports of the bridge that large ones are compared with
	grown    int   // rounds at each size
	crowds   []int // processes at once
	crowded  int   // rounds of each
	pumping  time.Duration
	pumped   int // rounds of that long
	transfer int64
	streams  int // transfers
	guests   int // on a bridge that floods
	floods   int // frames to nobody
	benchtime
}

// benchtime is that of go test -bench; "": none are run.
type benchtime string

var extents = map[string]extent{
	"full": {
		rounds: 60, sizes: []int{10, 50, 100, 200, 400, 700, 1000}, few: 20, grown: 25, crowds: []int{1, 8, 64}, crowded: 7,
		pumping: 40 * time.Millisecond, pumped: 30, transfer: 64 << 20, streams: 9, guests: 256, floods: 600, benchtime: "100x",
	},
	"quick": {
		rounds: 12, sizes: []int{20, 200}, few: 20, grown: 8, crowds: []int{1, 8, 64}, crowded: 2,
		pumping: 20 * time.Millisecond, pumped: 7, transfer: 16 << 20, streams: 3, guests: 256, floods: 100, benchtime: "20x",
	},
	"smoke": {
		rounds: 1, sizes: []int{3}, few: 2, grown: 1, crowds: []int{1, 4}, crowded: 1,
		pumping: time.Millisecond, pumped: 1, transfer: 1 << 16, streams: 1, guests: 8, floods: 5,
	},
}

// TestReport measures everything. TAPBRIDGE_BENCH says how much of it: "full" or
// "quick" writes the documentation; without it this shows that the harness works,
// in a few seconds.
func TestReport(t *testing.T) {
	how := os.Getenv("TAPBRIDGE_BENCH")
	dir := filepath.Join("..", "..", "docs")
	if how == "" {
		how, dir = "smoke", t.TempDir()
	}
	e, known := extents[how]
	if !known {
		t.Fatalf("TAPBRIDGE_BENCH is %q, want full or quick", how)
	}
	e.name = how
	r, tools := newReport(), build(t)
	begin := time.Now()
	for _, part := range []struct {
		name string
		do   func(*testing.T, extent, programs, *report)
	}{
		{"processes", processes},
		{"crowds", crowds},
		{"frames", frames},
		{"streams", streams},
		{"floods", floods},
		{"functions", functions},
		{"growth", growth},
	} {
		start := time.Now()
		t.Run(part.name, func(t *testing.T) { part.do(t, e, tools, r) })
		t.Logf("%s: %s", part.name, time.Since(start).Round(100*time.Millisecond))
	}
	if t.Failed() {
		return
	}
	if err := r.write(dir, about(e, time.Since(begin))); err != nil {
		t.Fatal(err)
	}
	for _, target := range r.targets {
		t.Log(target)
	}
	if text := r.body.String(); len(r.targets) < 10 || strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
		t.Errorf("%d targets, and\n%s", len(r.targets), text)
	}
}

func about(e extent, took time.Duration) string {
	var u unix.Utsname
	_ = unix.Uname(&u) // cannot fail
	return fmt.Sprintf("Written by `make bench`%s in %s, on %s %s with %d processors, %s. Every figure of this page comes from that one run: "+
		"a median, and in parentheses what the middle half of the runs lies between. What is compared was measured in one loop, in turns.",
		map[string]string{"quick": " QUICK=1"}[e.name], took.Round(time.Second),
		unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:]), runtime.NumCPU(), runtime.GOARCH)
}

// programs are what runs.
type programs struct {
	tapbridge, bridge, tap string
	launch                 string // see its package; alone: a Go program that does nothing
	nothing                string // the least program there is
}

// build makes the plugin as the Makefile does, and the peers from their module.
func build(t *testing.T) programs {
	t.Helper()
	dir := t.TempDir()
	peers := "github.com/containernetworking/plugins/plugins/main/"
	p := programs{
		tapbridge: filepath.Join(dir, "tapbridge"), bridge: filepath.Join(dir, "bridge"), tap: filepath.Join(dir, "tap"),
		launch: filepath.Join(dir, "launch"),
	}
	goBuild(t, filepath.Join("..", ".."), p.tapbridge, "./cmd/tapbridge")
	goBuild(t, ".", p.bridge, peers+"bridge")
	goBuild(t, ".", p.tap, peers+"tap")
	goBuild(t, ".", p.launch, "./launch")
	var err error
	if p.nothing, err = exec.LookPath("true"); err != nil {
		t.Fatal(err)
	}
	return p
}

func goBuild(t *testing.T, module, target, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", target, pkg)
	cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
}
