package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blow is what happens to one system call of a plugin; the zero blow to none.
type blow struct {
	nth   int        // which of those that count, from 1
	errno unix.Errno // what the call returns in place of being made; 0: SIGKILL in its place
}

// counted are the system calls by which a plugin acts on the world outside, or
// hears from it. (The others are the Go runtime's, which does not survive a failing
// futex or mmap.)
var counted = map[uint64]string{
	unix.SYS_SENDTO: "sendto", unix.SYS_RECVFROM: "recvfrom", unix.SYS_IOCTL: "ioctl", unix.SYS_OPENAT: "openat", unix.SYS_OPENAT2: "openat2", unix.SYS_WRITE: "write",
	unix.SYS_SOCKET: "socket", unix.SYS_BIND: "bind", unix.SYS_SETSOCKOPT: "setsockopt", unix.SYS_FCNTL: "fcntl", unix.SYS_SETNS: "setns",
	unix.SYS_RENAMEAT: "renameat", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_FCHMOD: "fchmod",
}

// tracer follows the threads of one process. Children that it starts are not
// followed.
type tracer struct {
	program string
	blow
	pid    int
	begun  bool     // the plugin is running, not what stands in front of it
	calls  []string // that counted, in their order
	struck map[int]unix.Errno
	again  map[int]bool // threads that the kernel lets make their call once more
}

// traced runs the plugin and strikes. The calls are numbered over all threads:
// strace counts each thread's for itself, and Go moves the work from one to
// another. It returns the calls that counted.
func (c *caller) traced(b blow) (a answer, calls []string) {
	c.t.Helper()
	dir := c.t.TempDir()
	stdin, stdout, stderr := filepath.Join(dir, "stdin"), filepath.Join(dir, "stdout"), filepath.Join(dir, "stderr")
	files := make([]*os.File, 3)
	err := os.WriteFile(stdin, []byte(c.stdin), 0o600)
	for i, open := range []func() (*os.File, error){
		func() (*os.File, error) { return os.Open(stdin) },
		func() (*os.File, error) { return os.Create(stdout) },
		func() (*os.File, error) { return os.Create(stderr) },
	} {
		if err == nil {
			files[i], err = open()
		}
	}
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
		os.RemoveAll(dir)
	}()
	runtime.LockOSThread() // the kernel takes ptrace requests from one thread only
	defer runtime.UnlockOSThread()
	cmd := c.in.Command(c.command[0], c.command[1:]...)
	for key, value := range c.env {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	tr := &tracer{program: tapbridge, blow: b, pid: cmd.Process.Pid, struck: map[int]unix.Errno{}, again: map[int]bool{}}
	code, err := tr.follow()
	if err != nil {
		_ = unix.Kill(tr.pid, unix.SIGKILL)
		c.t.Fatalf("trace: %v", err)
	}
	_ = cmd.Process.Release()
	told, _ := os.ReadFile(stdout)
	said, _ := os.ReadFile(stderr)
	return answer{c.t, c.env["CNI_COMMAND"], code, string(told), string(said)}, tr.calls
}

// follow returns the exit code, -1 after a signal.
func (t *tracer) follow() (code int, err error) {
	var status unix.WaitStatus
	if _, err := unix.Wait4(t.pid, &status, unix.WALL, nil); err != nil || !status.Stopped() {
		return 0, fmt.Errorf("begin: status %x, %w", status, err)
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(t.pid, options); err != nil {
		return 0, err
	}
	t.begin()
	tid, signal := t.pid, 0
	for {
		if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return 0, err
		}
		for {
			// Other children of this process are not ours to wait for: the plugin's threads are of its process group.
			tid, err = unix.Wait4(-t.pid, &status, unix.WALL|unix.WNOTHREAD, nil)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return 0, err
			}
			if tid == t.pid && status.Exited() {
				return status.ExitStatus(), nil
			}
			if tid == t.pid && status.Signaled() {
				return -1, nil
			}
			if err == nil && status.Stopped() {
				break
			}
		}
		signal = t.stopped(tid, status)
	}
}

// stopped returns the signal with which the thread goes on.
func (t *tracer) stopped(tid int, status unix.WaitStatus) int {
	switch signal := status.StopSignal(); {
	case signal == unix.SIGTRAP|0x80:
		if t.begun {
			t.call(tid)
		}
		return 0
	case signal == unix.SIGTRAP:
		if status.TrapCause() == unix.PTRACE_EVENT_EXEC {
			t.begin()
		}
		return 0
	case signal == unix.SIGSTOP: // a new thread
		return 0
	default:
		return int(signal)
	}
}

func (t *tracer) begin() {
	program, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", t.pid))
	t.begun = program == t.program
}

// syscallInfo is a struct ptrace_syscall_info at the entry of a call; at its exit
// Number is what it returns.
type syscallInfo struct {
	Op      uint8
	_       [3]uint8
	_       uint32
	_, _    uint64
	Number  uint64
	Args    [6]uint64
	_, _, _ uint64
}

const (
	getSyscallInfo = 0x420e // PTRACE_GET_SYSCALL_INFO
	atEntry        = 1
	atExit         = 2

	restartNoIntr = -513 // ERESTARTNOINTR: a sysctl waits so for others' link changes
)

// call strikes at the entry of a call, and gives the error at its exit.
func (t *tracer) call(tid int) {
	var info syscallInfo
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0); errno != 0 {
		return // killed meanwhile
	}
	if errno, is := t.struck[tid]; is && info.Op == atExit {
		delete(t.struck, tid)
		t.set(tid, func(r *unix.PtraceRegs) { r.Rax = uint64(-int64(errno)) })
	}
	if info.Op != atEntry {
		t.again[tid] = int64(info.Number) == restartNoIntr
		return
	}
	if t.again[tid] {
		return
	}
	what, counts := t.describe(tid, info)
	if !counts {
		return
	}
	t.calls = append(t.calls, what)
	if len(t.calls) != t.nth {
		return
	}
	t.set(tid, func(r *unix.PtraceRegs) { r.Orig_rax = ^uint64(0) }) // no such call
	if t.errno == 0 {
		_ = unix.Kill(t.pid, unix.SIGKILL)
		return
	}
	t.struck[tid] = t.errno
}

func (t *tracer) set(tid int, change func(*unix.PtraceRegs)) {
	var r unix.PtraceRegs
	if unix.PtraceGetRegs(tid, &r) == nil {
		change(&r)
		_ = unix.PtraceSetRegs(tid, &r)
	}
}

// describe tells which call it is, and whether it counts.
func (t *tracer) describe(tid int, info syscallInfo) (what string, counts bool) {
	name, counts := counted[info.Number]
	switch info.Number {
	case unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_MKDIRAT:
		path := t.text(tid, info.Args[1])
		// The Go runtime looks at the machine before main.
		return name + " " + path, !strings.HasPrefix(path, "/sys/") && path != "/proc/self/cgroup" && path != "/proc/self/mountinfo"
	case unix.SYS_FCNTL:
		return "lock", info.Args[1] == unix.F_OFD_SETLKW
	case unix.SYS_WRITE, unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_IOCTL, unix.SYS_FCHMOD:
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, info.Args[0]))
		if strings.HasPrefix(to, "socket:") {
			to = t.netlink(tid, info)
		}
		return strings.TrimSpace(name + " " + to), counts && to != "anon_inode:[eventfd]" // the Go runtime wakes itself
	}
	return name, counts
}

// netlink is the number of the request that is sent.
func (t *tracer) netlink(tid int, info syscallInfo) string {
	if info.Number != unix.SYS_SENDTO {
		return ""
	}
	header := t.bytes(tid, info.Args[1], unix.SizeofNlMsghdr)
	if len(header) < unix.SizeofNlMsghdr {
		return ""
	}
	return fmt.Sprintf("request %d", binary.NativeEndian.Uint16(header[4:]))
}

func (t *tracer) text(tid int, at uint64) string {
	return unix.ByteSliceToString(t.bytes(tid, at, 200))
}

func (t *tracer) bytes(tid int, at uint64, length int) []byte {
	b := make([]byte, length)
	n, _ := unix.PtracePeekData(tid, uintptr(at), b)
	return b[:n]
}
