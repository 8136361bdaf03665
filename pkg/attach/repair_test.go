package attach

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// beyondRepair reports whether a device is missing after it, or a stranger's in
// its place.
func (d disturbance) beyondRepair() bool {
	return strings.Contains(d.command, "link del") && !strings.Contains(d.command, "link del IFB")
}

// podsOwn reports whether it is what a pod may do.
func (d disturbance) podsOwn(a port.Attachment) bool {
	return strings.HasPrefix(d.says, "pod interface") && (a.Mode == port.Veth || strings.Contains(d.command, " mtu "))
}

// A port that is spoilt in one way after another is as it was in the end, to the
// last attribute of everything.
func TestEachDriftIsRepaired(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.mustApply(a)
		n.mustAdmit(a)
		known, right := n.seen(a), n.world()
		for _, d := range disturbances {
			if !slices.Contains(d.modes, a.Mode) || d.beyondRepair() || d.podsOwn(a) {
				continue
			}
			n.disturb(d, a)
			if left := n.repair(known); len(left) > 0 {
				n.Errorf("%s: left %q", d.command, left)
			}
			if err := n.driftNow(a); err != nil {
				n.Errorf("%s: %v", d.command, err)
			}
		}
		n.hostRun("ip link del br9")
		n.wantWorld(right, "spoilt and repaired,")
	})
}

// However many addresses somebody in the pod has written, a repair ends soon, and what is
// said of them is short. They go with the next ones.
func TestManyAddresses(t *testing.T) {
	t.Parallel()
	const many = 2*mostStripped + 50
	n, a := newNode(t), wish(port.Tap)
	a.Guarded = false
	n.mustApply(a)
	known, right := n.seen(a), n.world()
	var batch strings.Builder
	for i := range many {
		fmt.Fprintf(&batch, "addr add 10.0.%d.%d/32 dev %s\n", i>>8, i&255, a.IfName)
	}
	list := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(list, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	n.pod.Run(t, "ip", "-batch", list)
	n.site(func(s *Site) {
		for repairs := 1; ; repairs++ {
			r, err := s.Repair(known, PodSide)
			if err != nil || len(r.Found) != 1 || len(r.Found[0].Text) > 300 {
				t.Fatalf("repair %d: found %q, error %v", repairs, r.Found, err)
			}
			left, err := s.pod.Addresses()
			if err != nil {
				t.Fatal(err)
			}
			inner, err := s.pod.LinkNamed(a.IfName)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := len(left[inner.Index]), max(0, many-repairs*mostStripped); got != want {
				t.Fatalf("repair %d leaves %d addresses, want %d", repairs, got, want)
			}
			if len(r.Left) == 0 {
				return
			}
		}
	})
	n.wantWorld(right, "repaired,")
}

// What cannot be repaired, and what is not ours, is not touched.
func TestNothingElseIsRepaired(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		for _, d := range disturbances {
			if !slices.Contains(d.modes, a.Mode) || !d.beyondRepair() && !d.podsOwn(a) {
				continue
			}
			n.mustApply(a)
			known := n.seen(a)
			n.disturb(d, a)
			host, pod := nstest.Monitor(n.T, n.host), nstest.Monitor(n.T, n.pod)
			n.repair(known)
			if events := append(host.Events(), pod.Events()...); len(events) > 0 {
				n.Errorf("%s: changes %q", d.command, events)
			}
			n.tidy(a)
		}
	})
}

// What `tapbridge doctor` takes for beyond an agent is what a repair leaves.
func TestLastingIsWhatRepairLeaves(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		for _, d := range disturbances {
			if !slices.Contains(d.modes, a.Mode) {
				continue
			}
			n.mustApply(a)
			n.mustAdmit(a)
			n.disturb(d, a)
			var all []Inspected
			n.site(func(s *Site) {
				var err error
				if all, err = s.Inspect(); err != nil {
					n.Fatal(err)
				}
			})
			beyond := d.beyondRepair() || d.podsOwn(a)
			says := named(d.says, a)
			for _, in := range all {
				for _, wrong := range in.Wrong() {
					unseen := strings.Contains(d.command, "nft") && (wrong == "ipSpoofChk is off, want on" || strings.HasPrefix(wrong, "ipSpoofChk: addresses"))
					if unrecorded := in.Network == ""; unrecorded || unseen {
						continue // an agent may have seen what is not known here
					}
					if is := slices.Contains(in.Lasting, wrong); is != beyond && (!beyond || strings.HasPrefix(wrong, says)) {
						n.Errorf("%s: %q is said to last: %v, want %v", d.command, wrong, is, beyond)
					}
				}
			}
			n.tidy(a)
		}
	})
}

// A bridge that comes again gets its ports back, but not one whose guest's MAC has
// been given away meanwhile.
func TestNewBridgeGetsItsPortBack(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		n.mustApply(a)
		n.mustAdmit(a)
		known, right := n.seen(a), n.world()
		n.hostRun("ip link del br0")
		if left := n.repair(known); !slices.Contains(left, "bridge is none, want br0") {
			n.Errorf("without a bridge: left %q", left)
		}
		nstest.Bridge(n.T, n.host, "br0", bridgeMAC)
		n.hostRun("ip link set up0 master br0")
		if left := n.repair(known); len(left) > 0 {
			n.Errorf("left %q", left)
		}
		n.wantWorld(right, "with a new bridge")

		n.hostRun("ip link set "+a.PortName()+" nomaster", "ip link set up0 address "+a.Guest.String())
		n.site(func(s *Site) {
			if _, err := s.Repair(known, HostSide); !errors.Is(err, ErrTaken) {
				n.Errorf("a stranger has the guest's MAC: %v", err)
			}
		})
	})
}

// A port that learned although it should not has learned addresses of others.
func TestRepairForgetsWhatWasLearned(t *testing.T) {
	n, a := newNode(t), wish(port.Veth)
	n.mustApply(a)
	const other = "52:54:00:00:00:77"
	n.hostRun("bridge link set dev "+a.PortName()+" learning on", "bridge fdb replace "+other+" dev "+a.PortName()+" master dynamic")
	if left := n.repair(n.seen(a)); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	if entries := n.host.Run(t, "bridge", "fdb", "show", "br", "br0"); strings.Contains(entries, other) {
		t.Errorf("still known:\n%s", entries)
	}
}

// A roaming guest's entry is where the guest is.
func TestRepairLetsAGuestRoam(t *testing.T) {
	n, a := newNode(t), wish(port.Tap)
	a.Table, a.Locked = port.Roaming, false
	n.mustApply(a)
	n.hostRun("bridge fdb replace " + a.Guest.String() + " dev up0 master static")
	before := n.world()
	if left := n.repair(n.seen(a)); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	n.wantWorld(before, "of a guest that roams:")
	n.hostRun("bridge fdb del " + a.Guest.String() + " dev up0 master")
	if left := n.repair(n.seen(a)); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	if err := n.drift(a); err != nil {
		t.Error(err)
	}
}

func TestVLANDriftIsRepaired(t *testing.T) {
	nstest.NeedsVLANs(t)
	eachMode(t, func(n *node, a port.Attachment) {
		n.hostRun("ip link set br0 type bridge vlan_filtering 1")
		a.VLANs = "42PU 100-103"
		n.mustApply(a)
		known, right := n.seen(a), n.world()
		for _, command := range []string{
			"bridge vlan del dev PORT vid 42",
			"bridge vlan add dev PORT vid 7 pvid untagged",
			"bridge vlan del dev PORT vid 101-102",
			"bridge fdb del 52:54:00:12:34:56 dev PORT master vlan 100",
			"ip link set PORT nomaster",
			"ip link set PORT nomaster; ip link set PORT master br0",
		} {
			n.disturb(disturbance{in: inHost, command: command}, a)
			if left := n.repair(known); len(left) > 0 {
				n.Errorf("%s: left %q", command, left)
			}
			n.wantWorld(right, command+", repaired:")
		}
		n.hostRun("ip link set "+a.PortName()+" nomaster", "ip link set br0 type bridge vlan_filtering 0")
		if left := n.repair(known); !slices.Contains(left, "bridge is none, want br0") {
			n.Errorf("a bridge that would mix its VLANs: left %q", left)
		}
	})
}

// seen is the attachment as an agent knows it that has looked before.
func (n *node) seen(a port.Attachment) (known Attached) {
	n.Helper()
	n.site(func(s *Site) {
		var there bool
		var err error
		if known, there, err = s.Named(a.PortName()); err != nil || !there || known.Attachment != a {
			n.Fatalf("there is %v: %+v, %v", there, known, err)
		}
	})
	return known
}

// repair returns what is left.
func (n *node) repair(known Attached) (left []string) {
	n.Helper()
	n.site(func(s *Site) {
		for _, side := range SidesOf(known.Attachment) {
			r, err := s.Repair(known, side)
			if err != nil {
				n.Error(err)
			}
			left = append(left, r.Left.Texts()...)
		}
	})
	return left
}
