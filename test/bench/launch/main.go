// Launch runs a program and says on standard error how much memory it had at most,
// in KiB. Whoever is large cannot find that out itself: a process begins with the
// mark of the one that has started it (fs/exec.c, exec_mmap). Without arguments it
// does nothing, as a measure of what any Go program costs.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		return
	}
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	err := cmd.Run()
	if used, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && err == nil {
		fmt.Fprint(os.Stderr, used.Maxrss)
		return
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
