package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	// What is built here is made of this: go test's cache must know.
	_ "github.com/tapbridge/tapbridge/pkg/plugin"
)

const root = "../.."

// build copies the sources into a folder of its own, calls its Makefile, and returns where the programs are.
func build(t *testing.T, env ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"Makefile", "go.mod", "go.sum", "cmd", "pkg", "internal"} {
		run(t, root, nil, "cp", "-r", part, dir)
	}
	run(t, dir, env, "make", "-s", "build", "VERSION=v1.2.3")
	return filepath.Join(dir, "bin")
}

func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", cmd.Args, err, out)
	}
	return string(out)
}

// Two builds of the same sources, in two folders, are the same file, and so is
// what is said about them, which is every module that is in there.
func TestBuildIsReproducible(t *testing.T) {
	folders := []string{build(t), build(t, "GOCACHE="+t.TempDir())} // the second finds nothing compiled
	for _, program := range []string{"tapbridge", "tapbridge-agent"} {
		t.Run(program, func(t *testing.T) { testProgram(t, folders, program) })
	}
}

func testProgram(t *testing.T, folders []string, program string) {
	var digests, told []string
	var doc document
	for _, folder := range folders {
		path := filepath.Join(folder, program)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, fmt.Sprintf("%x", sha256.Sum256(content)))
		if doc, err = describe(path); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, string(text))
	}
	t.Logf("digests %q", digests)
	if digests[0] != digests[1] || told[0] != told[1] {
		t.Errorf("two builds differ: %q\n%s", digests, cmp.Diff(told[0], told[1]))
	}
	want := strings.Fields(run(t, root, []string{"GOFLAGS=-buildvcs=false"}, "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}{{end}}{{end}}", "./cmd/"+program))
	slices.Sort(want)
	var got []string
	for _, p := range doc.Packages[2:] { // behind the binary and the standard library
		got = append(got, p.Name+"@"+p.Version)
		if !strings.HasPrefix(p.Comment, "go.sum h1:") {
			t.Errorf("%s has no sum", p.Name)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
		t.Errorf("modules in the binary (-want +told):\n%s", diff)
	}
}

// direct is a line of go.mod.
var direct = regexp.MustCompile(`(?m)^\t(\S+) (v\S+)$`)

// The page has each module that we ask for, in its version, and says why.
func TestEachModuleHasAReason(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "supplyChain.md"))
	if err != nil {
		t.Fatal(err)
	}
	modules := direct.FindAllStringSubmatch(string(mod), -1)
	for _, m := range modules {
		if !regexp.MustCompile(regexp.QuoteMeta("| `"+m[1]+"` | ") + `[^|]{20,} \|`).Match(page) {
			t.Errorf("docs/supplyChain.md does not say why %s is there", m[1])
		}
	}
	if rows := regexp.MustCompile("(?m)^\\| `").FindAll(page, -1); len(rows) != len(modules) {
		t.Errorf("docs/supplyChain.md has %d modules, go.mod %d", len(rows), len(modules))
	}
}
