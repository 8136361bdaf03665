// Package manual runs what the manual tells its readers to run, as it stands there, on a machine to throw away, and compares what is
// printed with what the manual shows. Package pages reads the manual; what its configurations and manifests say is tested by those
// who read such things.
//
// A block "sh run" is run, "sh start" is a VMM that goes on running, "text" is exactly what the block before prints. Other blocks are
// for clusters, or for machines that have what none here has.
package manual

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/pages"

	// What the test builds is made of this: go test's cache must know.
	_ "github.com/tapbridge/tapbridge/pkg/plugin"
)

const root = "../.."

func TestManual(t *testing.T) {
	all, err := pages.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	byPage := map[string][]pages.Block{}
	for _, b := range all {
		byPage[b.Page] = append(byPage[b.Page], b)
	}
	ran := 0
	for page, blocks := range byPage {
		script := script(blocks)
		if script == "" {
			continue
		}
		ran++
		t.Run(page, func(t *testing.T) { follow(t, script, blocks) })
	}
	if ran == 0 {
		t.Error("no page has a block to run")
	}
}

// follow runs the blocks in a directory with the built program and a disk, as the reader has them.
func follow(t *testing.T, script string, blocks []pages.Block) {
	if os.Geteuid() != 0 {
		nstest.Skip(t, "a machine to throw away is made of namespaces, and that needs root")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		nstest.Skip(t, "%v", err)
	}
	dir := t.TempDir()
	build(t, dir)
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, outputs(dir, blocks))
	}
	for i, b := range blocks[1:] {
		if b.Language != "text" {
			continue
		}
		got, err := os.ReadFile(filepath.Join(dir, output(i)))
		if err != nil {
			t.Fatalf("%s is not after a block that is run: %v", b, err)
		}
		if diff := cmp.Diff(b.Text, string(got)); diff != "" {
			t.Errorf("%s: the command prints something else (-manual +command):\n%s", b, diff)
		}
	}
}

func build(t *testing.T, dir string) {
	t.Helper()
	program, err := filepath.Abs(filepath.Join(dir, "bin", "tapbridge"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", program, "./cmd/tapbridge")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "guest.img"), nil, 0o600), os.Truncate(filepath.Join(dir, "guest.img"), 1<<20)); err != nil {
		t.Fatal(err)
	}
}

// Programs in the manual are Go. (To compile them here would take all that those who read them have.)
func TestPrograms(t *testing.T) {
	all, err := pages.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if b.Language != "go" {
			continue
		}
		if _, err := parser.ParseFile(token.NewFileSet(), b.String(), b.Text, parser.AllErrors); err != nil {
			t.Error(err)
		}
	}
}

// output is the file with what the block of that index prints.
func output(i int) string { return fmt.Sprintf("output.%d", i) }

// outputs are for whoever has to find out what failed.
func outputs(dir string, blocks []pages.Block) (all string) {
	for i, b := range blocks {
		if text, err := os.ReadFile(filepath.Join(dir, output(i))); err == nil {
			all += fmt.Sprintf("%s says:\n%s", b, text)
		}
	}
	return all
}

// script is "" when nothing is to be run. In the end nothing may be left but the loopback.
func script(blocks []pages.Block) string {
	body := ""
	for i, b := range blocks {
		if b.Language != "sh" {
			continue
		}
		switch b.Mark {
		case "run":
			body += fmt.Sprintf("{\n%s} >%s 2>&1\n", b.Text, output(i))
		case "start":
			body += fmt.Sprintf("{\n%s} </dev/null >%s 2>&1 &\n%s", b.Text, output(i), opened)
		}
	}
	if body == "" {
		return ""
	}
	const begin, end = "mount -t tmpfs tmpfs /run\nip link set lo up\n", "\n[ $(ip -br link | wc -l) = 1 ] || { ip link; exit 1; }\n"
	return begin + strings.TrimSpace(body) + end
}

// opened waits until the VMM has opened its tap.
const opened = `for i in $(seq 300); do
	bin/tapbridge ports | grep -q ' yes ' && break
	kill -0 $! && sleep 0.1
done
`
