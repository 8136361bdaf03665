package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

func TestInstall(t *testing.T) {
	one, two := releases(t)
	for name, test := range map[string]func(t *testing.T, one, two string){
		"versions":             versions,
		"after a crash":        afterACrash,
		"refuses":              refuses,
		"without space":        withoutSpace,
		"read-only":            readOnly,
		"without capabilities": withoutCapabilities,
		"killed":               killed,
		"under use":            underUse,
		"at once":              atOnce,
		"stays":                stays,
	} {
		t.Run(name, func(t *testing.T) { test(t, one, two) })
	}
}

// releases builds the program in two versions, since a program installs itself.
func releases(t *testing.T) (one, two string) {
	t.Helper()
	dir := t.TempDir()
	build := func(version string) string {
		path := filepath.Join(dir, version)
		cmd := exec.Command("go", "build", "-ldflags=-s -w -X main.version="+version, "-o", path, ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return path
	}
	return build("one"), build("two")
}

// succeed runs a program.
func succeed(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v: %s", cmd.Args, err, stderr.Bytes())
	}
	return string(out)
}

// holds demands that the folder has the program in one of these versions, whole,
// and nothing else.
func holds(t *testing.T, dir string, programs ...string) {
	t.Helper()
	only(t, dir, "tapbridge")
	info, err := os.Lstat(filepath.Join(dir, "tapbridge"))
	if err != nil || info.Mode() != installMode {
		t.Errorf("installed: %v, %v", info.Mode(), err)
	}
	if !slices.ContainsFunc(programs, func(p string) bool { return content(t, p) == content(t, filepath.Join(dir, "tapbridge")) }) {
		t.Errorf("the installed file is none of %q", programs)
	}
}

func only(t *testing.T, dir string, want ...string) {
	t.Helper()
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("the folder has %q, want %q", got, want)
	}
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func versions(t *testing.T, one, two string) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tapbridge")
	says := func(program, want string) {
		t.Helper()
		if out := succeed(t, program, "install", dir); !strings.HasPrefix(out, path+want) {
			t.Errorf("it says %q, want %q", out, path+want)
		}
	}
	says(one, " is now version one, sha256 ")
	holds(t, dir, one)
	before := inode(t, path)
	says(one, " is version one already, sha256 ")
	if inode(t, path) != before {
		t.Error("the same file was written again")
	}
	says(path, " is version one already") // the plugin itself
	says(two, " is now version two, sha256 ")
	holds(t, dir, two)
	// The same content is not enough where it cannot be executed, or is elsewhere.
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	says(two, " is now version two")
	holds(t, dir, two)
	if err := replaceByLink(path, two); err != nil {
		t.Fatal(err)
	}
	says(two, " is now version two")
	holds(t, dir, two)
	if succeed(t, two, "version") != succeed(t, path, "version") {
		t.Error("the installed file is another program")
	}
}

func replaceByLink(path, target string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var is unix.Stat_t
	if err := unix.Lstat(path, &is); err != nil {
		t.Fatal(err)
	}
	return is.Ino
}

// Temporary files of a crash go, those of others stay.
func afterACrash(t *testing.T, one, _ string) {
	dir := t.TempDir()
	foreign := []string{".tapbridge-", ".tapbridge-12.bak", ".tapbridge-x", "bridge", "tapbridge-1"}
	for _, name := range append(foreign, ".tapbridge-1", ".tapbridge-4294967295") {
		put(t, filepath.Join(dir, name), "half", 0o600)
	}
	if err := os.Mkdir(filepath.Join(dir, ".tapbridge-2"), 0o700); err != nil {
		t.Fatal(err)
	}
	succeed(t, one, "install", dir)
	want := append(foreign, ".tapbridge-2", "tapbridge")
	slices.Sort(want)
	only(t, dir, want...)
}

func refuses(t *testing.T, _, _ string) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "file"), "", 0o600)
	if err := os.MkdirAll(filepath.Join(dir, "taken", "tapbridge"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 2, "usage: tapbridge install [-stay] DIR"},
		{[]string{""}, 2, "usage"},
		{[]string{"-stay"}, 2, "usage"},
		{[]string{"-x", dir}, 2, "usage"},
		{[]string{dir, dir}, 2, "usage"},
		{[]string{dir, "-stay"}, 2, "usage"},
		{[]string{filepath.Join(dir, "missing")}, 1, "missing: no such file or directory"},
		{[]string{"-stay", filepath.Join(dir, "missing")}, 1, "missing: no such file or directory"},
		{[]string{filepath.Join(dir, "file")}, 1, "file: not a directory"},
		{[]string{filepath.Join(dir, "taken")}, 1, "taken/tapbridge: file exists"},
	} {
		code, stdout, stderr := call(nil, nil, "", append([]string{"install"}, c.args...)...)
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: code %d, stdout %q, stderr %q, want %q", c.args, code, stdout, stderr, c.says)
		}
	}
	only(t, filepath.Join(dir, "taken"), "tapbridge")
}

// masked runs a shell script in a mount namespace of its own, with the program as
// $0 and a folder as $1, on which $2 is an old file.
func masked(t *testing.T, program, script string) (out string, err error) {
	t.Helper()
	if os.Geteuid() != 0 {
		nstest.Skip(t, "a mount namespace needs root")
	}
	old := filepath.Join(t.TempDir(), "old")
	put(t, old, "old", 0o755)
	text, err := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec", script, program, t.TempDir(), old).CombinedOutput()
	return string(text), err
}

// A full disk leaves the old file and nothing else.
func withoutSpace(t *testing.T, one, _ string) {
	out, err := masked(t, one, `mount -t tmpfs -o size=1m none "$1"; cp "$2" "$1/tapbridge"
		! "$0" install "$1" || exit 9; ls -A "$1"; cat "$1/tapbridge"`)
	if err != nil || !strings.Contains(out, "no space left on device\n") || !strings.HasSuffix(out, "\ntapbridge\nold") || strings.Count(out, "\n") != 2 {
		t.Errorf("%v: %s", err, out)
	}
}

func readOnly(t *testing.T, one, _ string) {
	out, err := masked(t, one, `mount -t tmpfs none "$1"; cp "$2" "$1/tapbridge"; mount -o remount,ro "$1"
		! "$0" install "$1" || exit 9; cat "$1/tapbridge"`)
	if err != nil || !strings.HasSuffix(out, "read-only file system\nold") || strings.Count(out, "\n") != 1 {
		t.Errorf("%v: %s", err, out)
	}
}

// Root needs no capability for a folder of its own, and is told what it lacks for
// that of another. Here it has none, may get none, and the root is read-only, as in
// the DaemonSet's container.
func withoutCapabilities(t *testing.T, one, _ string) {
	powerless := `setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- `
	out, err := masked(t, one, `mount -t tmpfs -o mode=755 none "$1"; mount -o remount,bind,ro /
		`+powerless+`"$0" install "$1"; cmp "$0" "$1/tapbridge"; ls -A "$1"`)
	if err != nil || !strings.HasSuffix(out, "\ntapbridge\n") {
		t.Errorf("%v: %s", err, out)
	}
	out, err = masked(t, one, `mount -t tmpfs -o mode=755,uid=1001 none "$1"; ! `+powerless+`"$0" install "$1" || exit 9`)
	if err != nil || !strings.Contains(out, "permission denied: the folder belongs to user 1001, not to 0") || strings.Count(out, "\n") != 1 {
		t.Errorf("%v: %s", err, out)
	}
}
