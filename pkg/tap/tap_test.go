package tap

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

func conn(t *testing.T, ns *nstest.NS) *rtnl.Conn {
	t.Helper()
	c, err := rtnl.OpenAt(ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func ids(inside, outside, size int) syscall.SysProcIDMap {
	return syscall.SysProcIDMap{ContainerID: inside, HostID: outside, Size: size}
}

// Ids are those of the user namespace that owns the network namespace, also when
// no process is in it, and one that it does not have is refused.
func TestIDsOfAUserNamespace(t *testing.T) {
	t.Parallel()
	_, owned := nstest.NewUser(t, ids(0, 100000, 65536), ids(100, 200000, 50))
	for _, c := range []struct {
		ns   *nstest.NS
		give Access
		want Access
		says string
	}{
		{ns: owned, give: Access{Owner: 107, Group: 108, MultiQueue: true}, want: Access{Owner: 100107, Group: 200008, MultiQueue: true}},
		{ns: owned, give: Access{Owner: 0, Group: Anyone}, want: Access{Owner: 100000, Group: Anyone}},
		{ns: owned, give: Access{Owner: Anyone, Group: 149}, want: Access{Owner: Anyone, Group: 200049}},
		{ns: owned, give: Access{Owner: 65536, Group: 108}, says: "owner 65536: "},
		{ns: owned, give: Access{Owner: 107, Group: 99}, says: "group 99: "},
		{ns: nstest.New(t), give: Access{Owner: 107, Group: 99}, want: Access{Owner: 107, Group: 99}},
	} {
		got, err := c.give.In(conn(t, c.ns))
		if c.says != "" {
			if !errors.Is(err, ErrUnmapped) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v: %v, want ErrUnmapped", c.give, err)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%+v is %+v, %v; want %+v", c.give, got, err, c.want)
		}
	}
}

// labelled stands in for a kernel with SELinux: what would be the label for the
// next exec goes into a file.
func labelled(t *testing.T) (written string) {
	t.Helper()
	written = filepath.Join(t.TempDir(), "exec")
	before := execLabel
	execLabel = written
	t.Cleanup(func() { execLabel = before })
	return written
}

const someLabel = "system_u:system_r:container_t:s0"

// A labelled tap is created by another process, from a thread with that label,
// and is otherwise like any other.
func TestLabelledTap(t *testing.T) {
	written := labelled(t)
	ns := nstest.New(t)
	c := conn(t, ns)
	for _, multiQueue := range []bool{false, true} {
		want := Tap{
			Name: "tap1", MAC: mac.Addr{0xfe, 0x54, 0, 0, 0, 1}, MTU: 1400,
			Access: Access{Owner: 107, Group: 108, MultiQueue: multiQueue}, Label: someLabel,
		}
		index, err := Add(c, want, rtnl.Mark{Group: 7, Alias: "mine"})
		if err != nil {
			t.Fatal(err)
		}
		l, err := c.LinkAt(index)
		if err != nil {
			t.Fatal(err)
		}
		got := Tap{Name: l.Name, MAC: l.MAC(), MTU: l.MTU, Label: someLabel}
		got.Access, _ = AccessOf(l)
		if got != want || l.Alias != "mine" {
			t.Errorf("there is %+v with alias %q, want %+v", got, l.Alias, want)
		}
		if text, err := os.ReadFile(written); err != nil || string(text) != someLabel {
			t.Errorf("the label written is %q, %v", text, err)
		}
		if _, err := Add(c, want, rtnl.Mark{}); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), `create tap "tap1" as `+someLabel) {
			t.Errorf("a name that is taken: %v, want EEXIST", err)
		}
		ns.Run(t, "ip", "link", "del", "tap1")
	}
}

func TestLabelThatTheKernelRefuses(t *testing.T) {
	written := labelled(t)
	if err := os.Mkdir(written, 0o700); err != nil { // a write fails
		t.Fatal(err)
	}
	ns := nstest.New(t)
	_, err := Add(conn(t, ns), Tap{Name: "tap1", MTU: 1500, Label: someLabel}, rtnl.Mark{})
	if !errors.Is(err, unix.EISDIR) || !strings.Contains(err.Error(), "policy") {
		t.Errorf("Add: %v", err)
	}
	if out, err := ns.Command("ip", "link", "show", "tap1").CombinedOutput(); err == nil {
		t.Errorf("there is a tap: %s", out)
	}
}

func TestNoSELinux(t *testing.T) {
	before := selinuxFS
	selinuxFS = t.TempDir()
	t.Cleanup(func() { selinuxFS = before })
	if err := CheckLabel(""); err != nil {
		t.Error(err)
	}
	if err := CheckLabel(someLabel); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), someLabel) {
		t.Errorf("%v, want ErrUnsupported", err)
	}
}

// On a kernel with SELinux the process that creates taps bears the label, and no
// later one does. Without a policy the kernel knows its initial contexts only,
// and takes every other for that of the kernel.
func TestSELinux(t *testing.T) {
	const label = "unlabeled"
	if CheckLabel(label) != nil {
		t.Skip("this kernel runs without SELinux: tested in Debian's kernel by test/kernel")
	}
	own := func(run func(cmd *exec.Cmd) error) string {
		t.Helper()
		var out strings.Builder
		cmd := exec.Command("cat", "/proc/self/attr/current")
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := run(cmd); err != nil {
			t.Fatalf("%v: %s", err, &out)
		}
		return strings.TrimRight(out.String(), "\x00\n")
	}
	plain := own((*exec.Cmd).Run)
	if got := own(func(cmd *exec.Cmd) error { return runAs(label, cmd) }); got != label || got == plain {
		t.Errorf("the process bears %q, want %q; others %q", got, label, plain)
	}
	if got := own((*exec.Cmd).Run); got != plain {
		t.Errorf("a later process bears %q, want %q", got, plain)
	}
	ns := nstest.New(t)
	if _, err := Add(conn(t, ns), Tap{Name: "tap1", MTU: 1500, MAC: mac.Addr{2}, Label: label}, rtnl.Mark{}); err != nil {
		t.Error(err)
	}
}
