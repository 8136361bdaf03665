package attach

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// promotable asks for everything that can be promoted.
func promotable() port.Attachment {
	a := wish(port.Tap)
	a.Guarded, a.Promote = false, true
	a.Access.MultiQueue = false
	return a
}

func (n *node) promote(a port.Attachment) (done bool, err error) {
	n.Helper()
	known := n.seen(a)
	n.site(func(s *Site) { done, err = s.Promote(known) })
	return done, err
}

func (n *node) mustPromote(a port.Attachment) {
	n.Helper()
	if done, err := n.promote(a); err != nil || !done {
		n.Fatalf("promote: %v, %v", done, err)
	}
}

func (n *node) mustDemote(a port.Attachment) {
	n.Helper()
	known := n.seen(a)
	n.site(func(s *Site) {
		if err := s.Demote(known); err != nil {
			n.Fatal(err)
		}
	})
}

// driftNow is what CHECK says, wherever the tap is.
func (n *node) driftNow(a port.Attachment) (err error) {
	n.Helper()
	n.site(func(s *Site) {
		want, wantErr := s.Want(a)
		if want.Guard != nil {
			want.Guard.Addresses = guarded
		}
		got, observeErr := s.Observe(want)
		if wantErr != nil || observeErr != nil {
			n.Fatal(wantErr, observeErr)
		}
		err = port.Diff(want, got)
	})
	return err
}

// vmm opens the tap, and waits until the kernel has noticed.
func (n *node) vmm(a port.Attachment, ns *nstest.NS, name, forwards string) *nstest.Wire {
	n.Helper()
	w := nstest.OpenTap(n.T, ns, name)
	nstest.WaitForwarding(n.T, n.host, forwards)
	nstest.World(ns) // until the tap runs
	return w
}

// reach counts frames between guest and uplink, each way.
func (n *node) reach(a port.Attachment, guest, lan *nstest.Wire) (out, in int) {
	n.Helper()
	out = nstest.Count(n.T, guest, lan, arp(a, guarded), 10)
	in = nstest.Count(n.T, lan, guest, nstest.Frame(a.Guest.HardwareAddr(), far, 100, "in"), 10)
	return out, in
}

// guarded is the address of a guest with ipSpoofChk.
const guarded = "10.0.0.2"

var far = []byte{2, 0, 0, 0, 0, 9}

// arp is a frame in which the guest says that it has an address.
func arp(a port.Attachment, address string) []byte {
	sender, guest := netip.MustParseAddr(address).AsSlice(), a.Guest.HardwareAddr()
	return slices.Concat(far, guest, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2}, guest, sender, far, sender, make([]byte, 40)) // nstest.Count writes to the end
}

// wantGuarded sends from an address that is not the guest's.
func (n *node) wantGuarded(a port.Attachment, guest, lan *nstest.Wire, when string) {
	n.Helper()
	if !a.Guarded {
		return
	}
	if got := nstest.Count(n.T, guest, lan, arp(a, "10.0.0.9"), 10); got != 0 {
		n.Errorf("%s: %d frames of 10 with another IP address pass", when, got)
	}
}

func (n *node) mustAdmit(a port.Attachment) {
	n.Helper()
	n.site(func(s *Site) {
		if err := s.Admit(a, guarded); err != nil {
			n.Fatal(err)
		}
	})
}

// wantUnfit fails where a guest is promoted that is waited for: the entry would be there
// before the guest is.
func (n *node) wantUnfit(a port.Attachment) {
	n.Helper()
	if a.Table != port.Follow {
		return
	}
	if done, err := n.promote(a); done || !errors.Is(err, ErrUnfit) {
		n.Errorf("promoted before it has spoken: %v, %v", done, err)
	}
}

// begin takes a guest that is followed for one that has spoken.
func (n *node) begin(a port.Attachment) {
	n.Helper()
	if a.Table != port.Follow {
		return
	}
	known := n.seen(a)
	n.site(func(s *Site) {
		if acted, err := s.Activate(known); err != nil || !acted {
			n.Fatalf("activate: %v, %v", acted, err)
		}
	})
}

func (n *node) wantReach(a port.Attachment, guest, lan *nstest.Wire, when string) {
	n.Helper()
	if out, in := n.reach(a, guest, lan); out != 10 || in != 10 {
		n.Errorf("%s: %d frames of 10 from the guest arrive, %d to it", when, out, in)
	}
}

// The tap is the port, with everything that the veth end had, while the VMM goes on;
// and afterwards all is as it was, so that the next VMM finds it.
func TestPromoteAndDemote(t *testing.T) {
	for _, c := range []struct {
		table           port.Table
		locked, guarded bool
	}{
		{table: port.Sticky, locked: true},
		{table: port.Sticky, guarded: true},
		{table: port.Static, locked: true, guarded: true},
		{table: port.Roaming},
		{table: port.Kernel, guarded: true},
		{table: port.Follow},
		{table: port.Follow, locked: true, guarded: true},
	} {
		t.Run(fmt.Sprintf("%s locked %v guarded %v", c.table, c.locked, c.guarded), func(t *testing.T) {
			t.Parallel()
			n, a := newNode(t), promotable()
			a.Table, a.Locked, a.Guarded = c.table, c.locked, c.guarded
			n.mustApply(a)
			if a.Guarded {
				n.mustAdmit(a)
			}
			lan := nstest.OpenLink(t, n.lan, "down0")
			before := n.world()
			for range 3 {
				guest := n.vmm(a, n.pod, a.TapName(), a.PortName())
				n.wantUnfit(a)
				n.begin(a)
				n.wantReach(a, guest, lan, "in the pod")
				n.mustPromote(a)
				if done, err := n.promote(a); done || err != nil {
					t.Errorf("promoted twice: %v, %v", done, err)
				}
				nstest.WaitForwarding(t, n.host, a.PromotedName())
				n.wantReach(a, guest, lan, "promoted")
				n.wantGuarded(a, guest, lan, "promoted")
				n.wantInspected(a, a.PromotedName())
				if err := n.driftNow(a); err != nil {
					t.Errorf("promoted: %v", err)
				}
				n.wantNoFrameByVeth(a, guest, lan)
				n.wantNoStranger(a, guest, lan)
				guest.Close()
				n.wantAbandoned(a)
				n.mustDemote(a)
				if err := n.driftNow(a); err != nil {
					t.Errorf("demoted: %v", err)
				}
			}
			n.wantWorld(before, "promoted and demoted,")
			if err := n.remove(a.ID); err != nil {
				t.Error(err)
			}
		})
	}
}

// wantNoStranger sends from a MAC address that is not the guest's.
func (n *node) wantNoStranger(a port.Attachment, guest, lan *nstest.Wire) {
	n.Helper()
	if !a.Locked {
		return
	}
	frame := nstest.Frame([]byte{2, 0, 0, 0, 0, 9}, []byte{0x52, 0x54, 0, 0, 0, 0x99}, 100, "stranger")
	if got := nstest.Count(n.T, guest, lan, frame, 10); got != 0 {
		n.Errorf("promoted and locked: %d frames of 10 from a stranger's MAC address pass", got)
	}
}

// wantAbandoned waits for the child of another test that holds the tap for a moment.
func (n *node) wantAbandoned(a port.Attachment) {
	n.Helper()
	var err error
	for range 200 {
		if err = n.driftNow(a); err != nil && strings.Contains(err.Error(), "no VMM has it open, want it in the pod") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	n.Errorf("without a VMM: %v", err)
}

// wantNoFrameByVeth counts at the veth end.
func (n *node) wantNoFrameByVeth(a port.Attachment, guest, lan *nstest.Wire) {
	n.Helper()
	count := func() string {
		l, err := n.host.Handle().LinkByName(a.PortName())
		if err != nil {
			n.Fatal(err)
		}
		return fmt.Sprint(l.Attrs().Statistics.RxPackets, l.Attrs().Statistics.TxPackets)
	}
	before := count()
	n.wantReach(a, guest, lan, "promoted")
	if after := count(); before != after {
		n.Errorf("frames pass the veth end: %s before, %s after", before, after)
	}
}

// With a VMM that goes on, too.
func TestDemoteUnderAVMM(t *testing.T) {
	n, a := newNode(t), promotable()
	n.mustApply(a)
	lan, guest := nstest.OpenLink(t, n.lan, "down0"), n.vmm(a, n.pod, a.TapName(), a.PortName())
	n.wantInspected(a, "")
	n.mustPromote(a)
	n.wantInspected(a, a.PromotedName())
	n.mustDemote(a)
	n.wantInspected(a, "")
	nstest.WaitForwarding(t, n.host, a.PortName())
	n.wantReach(a, guest, lan, "demoted")
	if err := n.driftNow(a); err != nil {
		t.Error(err)
	}
}

// wantInspected is what `tapbridge ports` knows.
func (n *node) wantInspected(a port.Attachment, promoted string) {
	n.Helper()
	n.site(func(s *Site) {
		all, err := s.Inspect()
		if err != nil || len(all) != 1 {
			n.Fatalf("%+v, %v", all, err)
		}
		got := all[0]
		if got.Promoted != promoted || got.Carrier == nil || !*got.Carrier || len(got.Wrong()) > 0 || got.PodUnknown || got.Port.Name != a.PortName() {
			n.Errorf("want %q promoted and all right: %+v", promoted, got)
		}
		if a.Table == port.Follow && got.State != Running {
			n.Errorf("a guest that is followed is %q", got.State)
		}
		if (got.Redirect == nil) != (promoted != "") {
			n.Errorf("redirected by %v", got.Redirect)
		}
	})
}

// A roaming guest that has migrated away keeps its entry where it is when its tap goes
// back.
func TestDemoteAfterTheGuestHasGone(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), promotable()
	a.Table, a.Locked = port.Roaming, false
	n.mustApply(a)
	guest := n.vmm(a, n.pod, a.TapName(), a.PortName())
	n.begin(a)
	n.mustPromote(a)
	n.hostRun("bridge fdb replace " + a.Guest.String() + " dev up0 master static")
	guest.Close()
	n.wantAbandoned(a)
	n.mustDemote(a)
	if entries := n.host.Run(t, "bridge", "fdb", "show", "dev", "up0"); !strings.Contains(entries, a.Guest.String()) {
		t.Errorf("the guest's entry has been taken back:\n%s", entries)
	}
	if err := n.driftNow(a); err != nil {
		t.Error(err)
	}
}

func TestPromoteInVLANs(t *testing.T) {
	nstest.NeedsVLANs(t)
	n, a := newNode(t), promotable()
	n.hostRun("ip link set br0 type bridge vlan_filtering 1", "bridge vlan add dev up0 vid 42", "bridge vlan add dev up0 vid 42 pvid untagged")
	a.VLANs = "42PU 100-103"
	n.mustApply(a)
	before := n.world()
	lan, guest := nstest.OpenLink(t, n.lan, "down0"), n.vmm(a, n.pod, a.TapName(), a.PortName())
	n.mustPromote(a)
	nstest.WaitForwarding(t, n.host, a.PromotedName())
	n.wantReach(a, guest, lan, "promoted")
	if err := n.driftNow(a); err != nil {
		t.Error(err)
	}
	guest.Close()
	n.mustDemote(a)
	lan.Close()
	n.wantWorld(before, "promoted and demoted,")
}

// Wherever the tap is, DEL finds it: with the pod's side, without, and when the pod's
// namespace has gone; and GC does. The same ADD works after.
func TestRemoveWhilePromoted(t *testing.T) {
	for name, remove := range map[string]func(*node, port.Attachment) error{
		"DEL": func(n *node, a port.Attachment) error { return n.remove(a.ID) },
		"DEL without the pod": func(n *node, a port.Attachment) (err error) {
			n.site(func(s *Site) { err = (&Site{host: s.host}).Remove(a.ID) })
			return err
		},
		"DEL without a record": func(n *node, a port.Attachment) error {
			n.hostRun("ip link set "+a.PortName()+" alias mine", "ip link set "+a.PromotedName()+" alias mine")
			return n.remove(a.ID)
		},
		"DEL after the port": func(n *node, a port.Attachment) (err error) {
			n.hostRun("ip link del " + a.PortName())
			return n.remove(a.ID)
		},
		"GC": func(n *node, a port.Attachment) (err error) {
			n.site(func(s *Site) { err = (&Site{host: s.host}).RemoveOthers(a.Network, nil) })
			return err
		},
		"GC after the port": func(n *node, a port.Attachment) (err error) {
			n.hostRun("ip link del " + a.PortName())
			n.site(func(s *Site) { err = (&Site{host: s.host}).RemoveOthers(a.Network, nil) })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, a := newNode(t), promotable()
			before := n.world()
			for range 2 {
				n.mustApply(a)
				guest := n.vmm(a, n.pod, a.TapName(), a.PortName())
				n.mustPromote(a)
				if err := remove(n, a); err != nil {
					t.Error(err)
				}
				n.wantWorld(before, name)
				guest.Close()
			}
		})
	}
}

// A tap whose port has gone is removed as soon as no VMM has it open, and not before.
func TestAbandonedTap(t *testing.T) {
	n, a := newNode(t), promotable()
	before := n.world()
	n.mustApply(a)
	guest := n.vmm(a, n.pod, a.TapName(), a.PortName())
	n.mustPromote(a)
	n.hostRun("ip link del " + a.PortName())
	n.site(func(s *Site) {
		_, all, unrecorded, err := s.Survey()
		if err != nil || len(all) != 1 || all[0].Port.Index != 0 || !all[0].Is(a.ID) || len(unrecorded) > 0 {
			t.Errorf("found %+v, %+v, %v", all, unrecorded, err)
		}
		if err := s.RemoveOrphan(a); err != nil {
			t.Error(err)
		}
		if _, there, err := s.promoted(a); !there || err != nil {
			t.Errorf("the tap of a running VMM is there: %v, %v", there, err)
		}
		guest.Close()
		if err := s.RemoveOrphan(a); err != nil {
			t.Error(err)
		}
	})
	n.wantWorld(before, "abandoned,")
}

// A name on the host that is taken is refused by ADD, and before anything is moved.
func TestPromotedNameIsTaken(t *testing.T) {
	n, a := newNode(t), promotable()
	n.hostRun("ip tuntap add dev " + a.PromotedName() + " mode tap")
	before := n.world()
	if err := n.apply(a); !errors.Is(err, ErrExists) {
		t.Errorf("ADD: %v", err)
	}
	n.wantWorld(before, "refused,")
	n.hostRun("ip link del " + a.PromotedName())
	n.mustApply(a)
	n.hostRun("ip tuntap add dev " + a.PromotedName() + " mode tap")
	guest := n.vmm(a, n.pod, a.TapName(), a.PortName())
	before = n.world()
	if done, err := n.promote(a); done || !errors.Is(err, ErrExists) {
		t.Errorf("promote: %v, %v", done, err)
	}
	n.wantWorld(before, "not promoted,")
	guest.Close()
	if err := n.remove(a.ID); err != nil {
		t.Error(err)
	}
	n.hostRun("ip link del " + a.PromotedName()) // a stranger's, and still there
}

// What is not as it should be is not promoted, nor what was not asked for, nor where
// the bridge would let the guest wait.
func TestUnfit(t *testing.T) {
	for command, in := range map[string]func(*node) *nstest.NS{
		"true": inHost,
		"ip link set br0 type bridge stp_state 1":       inHost,
		"bridge link set dev PORT learning on":          inHost,
		"ip link set TAP address 02:00:00:00:00:99":     inPod,
		"ip addr add 10.0.0.1/24 dev TAP":               inPod,
		"ip link set TAP alias mine":                    inPod,
		"tc qdisc replace dev TAP root pfifo_fast":      inPod,
		"ip link set TAP down; ip link set TAP name xx": inPod,
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			n, a := newNode(t), promotable()
			a.Promote = command != "true"
			n.mustApply(a)
			guest := n.vmm(a, n.pod, a.TapName(), a.PortName())
			n.disturb(disturbance{in: in, command: command}, a)
			before := n.world()
			if done, err := n.promote(a); done || !errors.Is(err, ErrUnfit) {
				t.Errorf("promote: %v, %v", done, err)
			}
			n.wantWorld(before, "unfit,")
			guest.Close()
			if done, err := n.promote(a); done || !errors.Is(err, ErrUnfit) {
				t.Errorf("promote without a VMM: %v, %v", done, err)
			}
		})
	}
}
