package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// box is a machine to throw away: namespaces for the network, mounts, processes, IPC and the host name, over this machine's files.
// Its first process ends when this one does, however that comes about, and with it ends every other: daemons, shims, containers.
type box struct {
	t    *testing.T
	net  *nstest.NS
	dir  string // for all files of the box; its name is also that of the box' cgroup
	init *exec.Cmd
	pids string // the pid namespace
}

// boxInit is the first process. It lives until its standard input ends. /run and /var/lib are where runtimes keep sockets, mounts and
// state at paths that cannot be configured. The tun device is made as udev would make it: without udev it is for root only.
const boxInit = `
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mknod -m 666 /run/tun c 10 200
echo ready
exec cat`

// tunDevice is what containers get as /dev/net/tun.
const tunDevice = "/run/tun"

// mark begins the name of each box of this process.
var mark = fmt.Sprintf("tapbridge-e2e-%d-", os.Getpid())

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{t: t, net: nstest.New(t)}
	var err error
	b.dir, err = os.MkdirTemp("", mark) // t.TempDir's path may be too long for that of a socket
	must(t, err)
	must(t, os.Chmod(b.dir, 0o755)) // for users in containers
	t.Cleanup(b.close)
	b.start()
	return b
}

func (b *box) start() {
	b.t.Helper()
	cmd := b.net.Command("sh", "-ec", boxInit)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
	cmd.Stderr = os.Stderr
	_, err := cmd.StdinPipe() // closed when this process ends
	must(b.t, err)
	out, err := cmd.StdoutPipe()
	must(b.t, err)
	must(b.t, cmd.Start())
	b.init = cmd.Cmd
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		b.t.Fatalf("make a box: it said %q: %v", line, err)
	}
	b.pids, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", b.init.Process.Pid))
	must(b.t, err)
}

// close ends the box, and holds that nothing of it remains.
func (b *box) close() {
	if b.init != nil {
		_ = b.init.Process.Kill()
		_ = b.init.Wait() // returns when the last process of the pid namespace is gone
	}
	b.removeCgroups()
	must(b.t, os.RemoveAll(b.dir))
	if left := remains(filepath.Base(b.dir), b.pids); len(left) > 0 {
		b.t.Errorf("remains of the box: %q", left)
	}
}

// command is [exec.Command] inside the box.
func (b *box) command(name string, args ...string) *exec.Cmd {
	enter := []string{"-t", fmt.Sprint(b.init.Process.Pid), "-m", "-n", "-p", "-i", "-u", "--", name}
	return exec.Command("nsenter", append(enter, args...)...)
}

// run runs a command inside the box and returns what it said on standard output.
func (b *box) run(name string, args ...string) string {
	b.t.Helper()
	out, err := output(b.command(name, args...))
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func output(cmd *exec.Cmd) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%q: %w: %s%s", cmd.Args, err, out, stderr.String())
	}
	return string(out), err
}

// cgroup is where runtimes are told to make those of pods.
func (b *box) cgroup() string { return "/" + filepath.Base(b.dir) }

// cgroups are the box' own in every hierarchy, or in the only one. A namespace does not take them with it.
func cgroups(box string) (dirs []string) {
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		found, _ := filepath.Glob(pattern + box) // the pattern is well-formed
		dirs = append(dirs, found...)
	}
	return dirs
}

// removeCgroups waits for the kernel, which lets go of a cgroup some time after its last process has ended.
func (b *box) removeCgroups() {
	eventually(b.t, "cgroups are removed", func() error {
		for _, dir := range cgroups(filepath.Base(b.dir)) {
			if err := exec.Command("find", dir, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run(); err != nil {
				return err
			}
		}
		return nil
	})
}
