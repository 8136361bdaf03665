package bench

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var benchmark = regexp.MustCompile(`(?m)^pkg: \S+/(\S+)|^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(\S+) ns/op(?:\s+(\d+) B/op\s+(\d+) allocs/op)?`)

// functions runs the benchmarks beside the packages.
func functions(t *testing.T, e extent, _ programs, r *report) {
	if e.benchtime == "" {
		return
	}
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", ".", "-benchmem", "-benchtime", string(e.benchtime), "./pkg/...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
	rows := [][]string{{"`go test -bench`", "ns", "bytes", "allocations"}}
	pkg := ""
	for _, found := range benchmark.FindAllStringSubmatch(string(out), -1) {
		if found[1] != "" {
			pkg = found[1]
			continue
		}
		rows = append(rows, []string{pkg + " " + strings.ReplaceAll(found[2], "/", ", "), found[3], found[4], found[5]})
	}
	if len(rows) == 1 {
		t.Fatalf("no benchmark in %s", out)
	}
	r.heading("Single functions")
	r.text("What touches the kernel does so in fresh network namespaces; one process, so no start is in it. The figures are means.")
	r.table(rows...)
}
