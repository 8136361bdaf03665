package kernel

import (
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/test/guest"
)

//go:embed init.sh
var initScript []byte

// programs are what the tests call that busybox has not, or not as fully.
var programs = []string{"ip", "bridge", "tc", "nft"}

// sources are what tests of any package read, besides their own testdata.
var sources = []string{"README.md", "SECURITY.md", "docs", "examples"}

// root is the root module's directory. It is not cleaned on purpose: go test's cache takes note of a file that a test opens only
// when its name begins with the directory of the test's own module, and this one does.
func root(t *testing.T) string {
	t.Helper()
	here, err := os.Getwd()
	must(t, err)
	return here + "/../.."
}

// image is a file system with the tests and all they need: their binaries, the files they read at the place they have in the
// source tree, and iproute2.
func image(t *testing.T, tools guest.Tools) []byte {
	t.Helper()
	a, err := guest.NewInitramfs(tools, initScript, modules...)
	must(t, err)
	must(t, addTests(a, root(t), t.TempDir()))
	for _, program := range programs {
		must(t, addProgram(a, program))
	}
	return a.Close()
}

// addTests builds the suites' binaries in dir and adds them, with the list for init.sh.
func addTests(a *guest.Initramfs, root, dir string) error {
	build := []string{"test", "-c", "-ldflags=-s -w", "-o", dir + "/"}
	trees := append([]string(nil), sources...)
	var list strings.Builder
	for _, s := range suites {
		build = append(build, "./"+s.pkg)
		trees = append(trees, s.pkg)
		fmt.Fprintf(&list, "%s /tests/%s.test %s\n", s.pkg, path.Base(s.pkg), s.run)
	}
	if err := goTool(root, build...); err != nil {
		return err
	}
	a.Add("suites", 0o644, []byte(list.String()))
	if err := addTree(a, dir, ".", "tests"); err != nil {
		return err
	}
	for _, tree := range trees {
		if err := addTree(a, root, tree, "src"); err != nil {
			return err
		}
	}
	return nil
}

func goTool(dir string, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%q in %q: %w\n%s", cmd.Args, dir, err, out)
	}
	return nil
}

// addTree adds a file, or all files below a directory.
func addTree(a *guest.Initramfs, from, name, to string) error {
	return fs.WalkDir(os.DirFS(from), name, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return addFile(a, from+"/"+name, path.Join(to, name))
	})
}

func addFile(a *guest.Initramfs, from, to string) error {
	content, err := os.ReadFile(from)
	if err == nil {
		a.Add(strings.TrimPrefix(to, "/"), 0o755, content)
	}
	return err
}

// addProgram adds a program of this machine, and the libraries it is linked with at the place it looks for them.
func addProgram(a *guest.Initramfs, name string) error {
	file, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	libraries, err := exec.Command("ldd", file).Output()
	if err != nil {
		return fmt.Errorf("ldd %q: %w", file, err)
	}
	for _, word := range strings.Fields(string(libraries)) {
		if filepath.IsAbs(word) {
			if err := addFile(a, word, word); err != nil {
				return err
			}
		}
	}
	return addFile(a, file, path.Join("usr/sbin", name))
}
