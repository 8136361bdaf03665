package attach

import (
	"slices"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// A process can be killed after any step; whatever it has left is recognised.
func TestRemoveAfterEveryStep(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		before := n.world()
		for last := range n.steps(a, false) {
			n.site(func(s *Site) {
				for _, step := range newWork(s, a, n.find(s)).steps()[:last+1] {
					if err := step.do(); err != nil {
						n.Fatalf("step %q: %v", step.name, err)
					}
				}
			})
			if err := n.remove(a.ID); err != nil {
				n.Errorf("after %d steps: %v", last+1, err)
			}
			n.wantWorld(before, "killed and removed:")
		}
	})
}

// Without the pod's namespace everything still goes, the tap in the pod too.
func TestRemoveFromTheHostAlone(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		before := n.world()
		n.mustApply(a)
		n.hostSite(func(s *Site) {
			if err := s.Remove(a.ID); err != nil {
				n.Fatal(err)
			}
		})
		n.wantWorld(before, "after Remove")
	})
}

func (n *node) hostSite(f func(*Site)) {
	n.Helper()
	n.host.Do(func() {
		s, err := Open()
		if err != nil {
			n.Fatal(err)
		}
		defer s.Close()
		f(s)
	})
}

// A path that does not lead to the pod any more does not keep what is in the pod, be it
// that of another pod or, by a process number that is another's now, of the host.
func TestRemoveByAWrongPath(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		for what, path := range map[string]string{"the host's": n.host.Path, "another pod's": n.lan.Path} {
			before := n.world()
			n.mustApply(a)
			n.host.Do(func() {
				s, err := OpenForRemoval(path)
				if err != nil {
					n.Fatal(err)
				}
				defer s.Close()
				if err := s.Remove(a.ID); err != nil {
					n.Error(err)
				}
			})
			n.wantWorld(before, "removed by "+what+" path,")
		}
	})
}

func TestRemoveMeetsParts(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		before := n.world()
		for _, d := range []disturbance{
			{in: inHost, command: "ip link del PORT", modes: anyMode},
			{in: inHost, command: "ip link set PORT nomaster", modes: anyMode},
			{in: inHost, command: "ip link set PORT alias mine", modes: anyMode},
			{in: inHost, command: "ip link set PORT group 7", modes: anyMode},
			{in: inPod, command: "ip link del POD", modes: podModes},
			{in: inPod, command: "ip link set POD down; ip link set POD name other", modes: podModes},
			{in: inPod, command: "ip link set POD alias mine", modes: podModes},
			{in: inPod, command: "ip link del TAP", modes: tapOnly},
			{in: inPod, command: "ip link set TAP group 7", modes: tapOnly},
			{in: inPod, command: "tc qdisc del dev TAP ingress", modes: tapOnly},
			{in: inHost, command: "bridge fdb del 52:54:00:12:34:56 dev PORT master", modes: anyMode},
			{in: inHost, command: "bridge fdb replace 52:54:00:12:34:56 dev up0 master static", modes: anyMode},
		} {
			n.mustApply(a)
			n.removeAfter(d, a, before)
		}
	})
}

func (n *node) removeAfter(d disturbance, a port.Attachment, before string) {
	n.Helper()
	if slices.Contains(d.modes, a.Mode) {
		n.disturb(d, a)
	}
	for range 2 {
		if err := n.remove(a.ID); err != nil {
			n.Errorf("%s: %v", d.command, err)
		}
	}
	n.wantWorld(before, d.command+":")
}

// A VMM that holds the tap is no obstacle.
func TestRemoveWhileTheTapIsOpen(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := wish(port.Tap)
	a.Access.MultiQueue = false
	before := n.world()
	n.mustApply(a)
	nstest.OpenTap(t, n.pod, a.TapName())
	if err := n.remove(a.ID); err != nil {
		t.Error(err)
	}
	n.wantWorld(before, "after Remove")
}

// Nothing of anybody else's is deleted, whatever name it bears.
func TestRemoveLeavesStrangersAlone(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		other := wish(port.Tap)
		other.ContainerID, other.IfName, other.Guest = "beef", "eth7", mac.Addr{0x52, 0x54, 0, 0, 0, 2}
		n.mustApply(other)
		n.host.Run(n.T, "ip", "link", "add", a.PortName(), "type", "bridge")
		n.pod.Run(n.T, "ip", "tuntap", "add", "dev", a.IfName, "mode", "tap")
		n.pod.Run(n.T, "ip", "tuntap", "add", "dev", a.TapName(), "mode", "tap")
		n.pod.Run(n.T, "ip", "link", "set", "lo", "alias", a.Record()) // as a pod can
		before := n.world()
		if err := n.remove(a.ID); err != nil {
			n.Error(err)
		}
		n.wantWorld(before, "after Remove")
	})
}

func TestRemoveOthers(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	attach := func(container, network string, last byte) port.Attachment {
		a := wish(port.Tap)
		a.ContainerID, a.Network, a.IfName, a.Guest[5] = container, network, "net"+string('0'+rune(last)), last
		n.mustApply(a)
		return a
	}
	keep := attach("c1", "vms", 1)
	attach("c2", "vms", 2)
	other := attach("c3", "others", 3)
	n.hostSite(func(s *Site) {
		if err := s.RemoveOthers("vms", []port.ID{keep.ID}); err != nil {
			t.Fatal(err)
		}
		all, _, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		got := map[port.ID]bool{}
		for _, a := range all {
			got[a.ID] = true
		}
		if len(got) != 2 || !got[keep.ID] || !got[other.ID] {
			t.Errorf("left are %v", got)
		}
	})
	for _, a := range []port.Attachment{keep, other} {
		if err := n.drift(a); err != nil {
			t.Error(err)
		}
	}
	if got := n.pod.Run(t, "ip", "link"); strings.Contains(got, "tap2") || strings.Contains(got, "net2") {
		t.Errorf("the pod's side is left: %s", got)
	}
}
