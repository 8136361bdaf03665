package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// remains lists what is left of the box of that name, or of all whose names begin so: processes, cgroups, mounts, files.
func remains(box, pids string) (left []string) {
	left = append(left, cgroups(box+"*")...)
	left = append(left, mounts(box)...)
	files, _ := filepath.Glob(filepath.Join(os.TempDir(), box+"*")) // the pattern is well-formed
	left = append(left, files...)
	return append(left, processes(box, pids)...)
}

// mounts are those this process sees.
func mounts(box string) (found []string) {
	table, _ := os.ReadFile("/proc/self/mountinfo") // there is always one
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, box) {
			found = append(found, line)
		}
	}
	return found
}

// processes are those in the pid namespace, and those whose command line names the box or which work in its directory.
func processes(box, pids string) (found []string) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range all {
		namespace, _ := os.Readlink(process + "/ns/pid") // an error: it has ended, or is about to
		words, _ := os.ReadFile(process + "/cmdline")
		directory, _ := os.Readlink(process + "/cwd")
		command := strings.ReplaceAll(string(words), "\x00", " ")
		if namespace != "" && namespace == pids || strings.Contains(command+directory, box) {
			found = append(found, process+" "+command)
		}
	}
	return found
}

// The check that ends each test, and all of them, sees what would be left.
func TestRemainsAreSeen(t *testing.T) {
	dir, err := os.MkdirTemp("", mark)
	must(t, err)
	defer os.RemoveAll(dir)
	sleeper := exec.Command("sleep", "600")
	sleeper.Dir = dir
	must(t, sleeper.Start())
	t.Cleanup(func() {
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
	})
	left := strings.Join(remains(filepath.Base(dir), ""), "\n")
	for _, want := range []string{dir, "sleep 600"} {
		if !strings.Contains(left, want) {
			t.Errorf("%q is not among what is left:\n%s", want, left)
		}
	}
}
