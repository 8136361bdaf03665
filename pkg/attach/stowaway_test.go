package attach

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// A tap that comes with something from the pod does not stay on the host: names that
// the host may want, a program that would see the guest's frames before the bridge. It
// never was up there.
func TestNothingComesAlong(t *testing.T) {
	for what, attach := range map[string]func(*testing.T, *nstest.NS, string){
		"other names": func(t *testing.T, pod *nstest.NS, tap string) {
			pod.Run(t, "ip", "link", "property", "add", "dev", tap, "altname", "bond0")
		},
		"an XDP program": attachXDP,
		"a program":      attachTCX,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			n, a := newNode(t), promotable()
			n.mustApply(a)
			guest := n.vmm(a, n.pod, a.TapName(), a.PortName())
			attach(t, n.pod, a.TapName())
			before, host := n.world(), nstest.Monitor(t, n.host)
			done, err := n.promote(a)
			if done || err == nil || !strings.Contains(err.Error(), "somebody in the pod") {
				t.Errorf("promoted: %v, %v", done, err)
			}
			for _, e := range host.Events() {
				if strings.Contains(e, a.PromotedName()) && strings.Contains(e, "UP") {
					t.Errorf("it was up: %s", e)
				}
			}
			n.wantWorld(before, "refused,")
			guest.Close()
		})
	}
}

// pass loads a program that does nothing: it returns 2, XDP_PASS, or -1, TCX_NEXT.
func pass(t *testing.T, kind uint32, value int32) int {
	t.Helper()
	type instruction struct {
		code, registers uint8
		offset          int16
		value           int32
	}
	code := [...]instruction{{unix.BPF_ALU64 | unix.BPF_MOV, 0, 0, value}, {unix.BPF_JMP | unix.BPF_EXIT, 0, 0, 0}}
	license := [...]byte{'G', 'P', 'L', 0}
	r := struct {
		kind, length  uint32
		code, license unsafe.Pointer
		_             [48]byte
	}{kind: kind, length: uint32(len(code)), code: unsafe.Pointer(&code), license: unsafe.Pointer(&license)}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&r)), unsafe.Sizeof(r))
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { unix.Close(int(fd)) })
	return int(fd)
}

func attachXDP(t *testing.T, pod *nstest.NS, tap string) {
	t.Helper()
	l, err := pod.Handle().LinkByName(tap)
	if err == nil {
		err = netlinkXDP(pod, l, pass(t, unix.BPF_PROG_TYPE_XDP, 2))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func netlinkXDP(pod *nstest.NS, l netlink.Link, fd int) (err error) {
	pod.Do(func() { err = netlink.LinkSetXdpFd(l, fd) })
	return err
}

// attachTCX needs Linux 6.6.
func attachTCX(t *testing.T, pod *nstest.NS, tap string) {
	t.Helper()
	l, err := pod.Handle().LinkByName(tap)
	if err != nil {
		t.Fatal(err)
	}
	const ingress = 46
	r := struct {
		index, fd, hook, flags uint32
		_                      [24]byte
	}{index: uint32(l.Attrs().Index), fd: uint32(pass(t, unix.BPF_PROG_TYPE_SCHED_CLS, -1)), hook: ingress}
	pod.Do(func() {
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&r)), unsafe.Sizeof(r))
		if errno == unix.EINVAL {
			nstest.Skip(t, "a kernel without tcx")
		}
		if errno != 0 {
			err = fmt.Errorf("attach: %w", errno)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
