package attach

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
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

// What the pod has put in the place of the tap since the comparison does not stay on the
// host, whatever it says of itself.
func TestAnotherDeviceIsSentBack(t *testing.T) {
	for what, place := range map[string]string{
		"a device":               "ip link add TAP type veth peer name peer",
		"one of a kind of ours":  "ip link add TAP group GROUP type veth peer name peer",
		"a stranger's tap":       "ip tuntap add TAP mode tap",
		"the tap, in other garb": "ip link set old name TAP alias mine group 7",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			n, a := newNode(t), promotable()
			n.mustApply(a)
			guest := n.vmm(a, n.pod, a.TapName(), a.PortName())
			defer guest.Close()
			n.site(func(s *Site) {
				p, _, err := s.Named(a.PortName())
				if err != nil {
					t.Fatal(err)
				}
				err = s.standing(p, HostSide, func(r *repairs, found port.Differences) error {
					if err := r.fit(found); err != nil {
						t.Fatal(err)
					}
					words := strings.NewReplacer("TAP", a.TapName(), "GROUP", fmt.Sprint(a.Group())).Replace(place)
					n.pod.Run(t, "sh", "-ec", "ip link set "+a.TapName()+" down; ip link set "+a.TapName()+" name old; "+words)
					host := nstest.World(n.host)
					if err := r.toHost(); !errors.Is(err, ErrUnfit) {
						t.Errorf("moved: %v, want %v", err, ErrUnfit)
					}
					if diff := nstest.Diff(host, nstest.World(n.host)); diff != "" {
						t.Errorf("on the host:\n%s", diff)
					}
					n.pod.Run(t, "ip", "link", "add", a.PromotedName(), "type", "ifb") // TAP is there as well
					before := n.world()
					n.hostRun("ip link add " + a.PromotedName() + " type ifb")
					l, err := s.host.LinkNamed(a.PromotedName())
					if err != nil {
						t.Fatal(err)
					}
					if err := r.sendBack(l); !errors.Is(err, ErrUnfit) {
						t.Error(err)
					}
					n.wantWorld(before, "with its names taken,")
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
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
