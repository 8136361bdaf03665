package conformance

import (
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

// openerName is what this binary is called when it opens a tap: it is told a
// device and a name.
const openerName = "open-tap"

// openTap opens an existing tap as a VMM does, and returns the exit code.
func openTap(device, name string) int {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		req, _ := unix.NewIfreq(name) // fails for long names only
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// opener is a path at which anybody may run this binary as openerName, with a
// device that anybody may open, as /dev/net/tun is on most nodes.
func opener(t *testing.T) (path, device string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "opener")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, device = filepath.Join(dir, openerName), filepath.Join(dir, "tun")
	if out, err := exec.Command("install", "-m", "755", self, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err = unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))) // TUN_MINOR
	for name, mode := range map[string]os.FileMode{dir: 0o755, device: 0o666} {
		if err == nil {
			err = os.Chmod(name, mode)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, device
}

func mapped(inside, outside, size int) syscall.SysProcIDMap {
	return syscall.SysProcIDMap{ContainerID: inside, HostID: outside, Size: size}
}

// Owner and group are ids of the user namespace that the pod's network namespace
// belongs to: in it 107:108 opens the tap, and nobody else does, the host's
// 107:108 least of all.
func TestOwnerInAUserNamespace(t *testing.T) {
	t.Parallel()
	n := newNode(t, conf{"owner": 107, "group": 108}, libvirt)
	user, pod := nstest.NewUser(t, mapped(0, 100000, 65536), mapped(0, 200000, 65536))
	in := env{"CNI_NETNS": pod.Path}
	added := n.call("ADD", n.conf(), in).ok()
	n.call("CHECK", n.conf(added.prev()), in).silent()
	open, device := opener(t)
	opens := func(ids ...string) bool {
		args := append([]string{"--net=" + pod.Path}, ids...)
		out, err := exec.Command("nsenter", append(args, open, device, "tap1")...).CombinedOutput()
		if err != nil && !strings.Contains(string(out), unix.EPERM.Error()) {
			t.Errorf("%q: %v: %s", ids, err, out)
		}
		return err == nil
	}
	inside := "--user=" + user
	for _, c := range []struct {
		ids  []string
		want bool
	}{
		{[]string{inside, "-S", "107", "-G", "108"}, true},
		{[]string{inside, "-S", "107", "-G", "109"}, false},
		{[]string{inside, "-S", "106", "-G", "108"}, false},
		{[]string{"-S", "107", "-G", "108"}, false},
		{[]string{"-S", "100107", "-G", "200108"}, true},
	} {
		if got := opens(c.ids...); got != c.want {
			t.Errorf("%q opens the tap: %v, want %v", c.ids, got, c.want)
		}
	}
	ports := n.prepare("", "")
	ports.command = append(ports.command, "ports")
	clear(ports.env)
	if out := ports.run().ok().stdout; !strings.Contains(out, " ok") {
		t.Errorf("ports, while no process is in the user namespace: %s", out)
	}
	n.call("CHECK", n.conf(added.prev(), conf{"owner": 106}), in).fails(100, "tap owner is 100107, want 100106")
	n.call("DEL", n.conf(), in).silent()
}

// An id that the user namespace does not have is refused before anything is
// made. In the other modes no id of it matters.
func TestOwnerThatAUserNamespaceLacks(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	_, pod := nstest.NewUser(t, mapped(0, 100000, 100), mapped(0, 200000, 200))
	in := env{"CNI_NETNS": pod.Path}
	n.unchanged(func() {
		n.call("ADD", n.conf(), in).fails(7, "owner 107", "user namespace")
		n.call("ADD", n.conf(conf{"owner": 0, "group": 200}), in).fails(7, "group 200", "user namespace")
		for _, mode := range []string{"veth", "host-tap"} {
			added := n.call("ADD", n.conf(conf{"mode": mode}), in).ok()
			n.call("CHECK", n.conf(conf{"mode": mode}, added.prev()), in).silent()
			n.call("DEL", n.conf(), in).silent()
		}
	})
}

// A tap cannot bear a context where the kernel has none.
func TestSELinuxContextNeedsSELinux(t *testing.T) {
	if _, err := os.Stat("/sys/fs/selinux/policyvers"); err == nil {
		nstest.Skip(t, "this kernel runs with SELinux")
	}
	inModes(t, []string{"tap", "host-tap"}, func(t *testing.T, n *node) {
		c := n.conf(conf{"selinuxContext": "system_u:system_r:container_t:s0"})
		n.unchanged(func() {
			n.call("ADD", c).fails(50, "system_u:system_r:container_t:s0", "no SELinux")
			n.call("STATUS", c).fails(50, "no SELinux")
		})
	})
}
