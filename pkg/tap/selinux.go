package tap

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where the kernel has SELinux. Tests look elsewhere.
var (
	selinuxFS = "/sys/fs/selinux"
	execLabel = "/proc/thread-self/attr/exec"
)

// CheckLabel reports why no tap could be made under the label, if so:
// ErrUnsupported.
func CheckLabel(label string) error {
	var fs unix.Statfs_t
	if label == "" || unix.Statfs(selinuxFS, &fs) == nil && fs.Type == unix.SELINUX_MAGIC {
		return nil
	}
	return fmt.Errorf("SELinux context %q: %w: no SELinux at %s", label, ErrUnsupported, selinuxFS)
}

// helper is what the process is called that creates a tap in our place.
const helper = "tapbridge-create-tap"

// A tap bears the context of the task that creates it
// (security/selinux/hooks.c, selinux_tun_dev_alloc_security reads
// current_sid(), not the context for new sockets). A process of several
// threads, as every Go program is, may change its own only within bounds
// (selinux_setprocattr), so there has to be another process: whatever program
// this package is linked into, under another name. It begins here because no
// program must be able to forget it.
func init() {
	if len(os.Args) == 3 && os.Args[0] == helper {
		os.Exit(createInherited())
	}
}

// createInherited creates the tap on the descriptor that attachAs has passed
// on, and returns the errno.
func createInherited() int {
	multiQueue, err := strconv.ParseBool(os.Args[2])
	if err == nil {
		err = attach(os.NewFile(3, Device), os.Args[1], multiQueue)
	}
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return int(errno)
	}
	return int(unix.EINVAL)
}

// attachAs is attach in a process that bears the label. The queue stays ours:
// both have the same open file.
func attachAs(label string, queue *os.File, name string, multiQueue bool) error {
	cmd := exec.Command("/proc/self/exe", name, strconv.FormatBool(multiQueue))
	cmd.Args[0] = helper
	cmd.Env = []string{} // none of it is for the helper
	cmd.ExtraFiles = []*os.File{queue}
	err := runAs(label, cmd)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		err = syscall.Errno(exit.ExitCode())
	}
	if err != nil {
		return fmt.Errorf("create tap %q as %s: %w", name, label, err)
	}
	return nil
}

// runAs starts cmd from a thread with the label for the next exec. The thread
// ends with the goroutine: no other program can be started by it.
func runAs(label string, cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := os.WriteFile(execLabel, []byte(label), 0); err != nil {
			done <- fmt.Errorf("the policy does not know it, or does not let the plugin use it: %w", err)
			return
		}
		done <- cmd.Run()
	}()
	return <-done
}
