package e2e

import (
	"os"
	"path/filepath"
	"strings"
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
