package attach

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

// plain is an attachment with nothing that the mode need not have.
func plain(mode port.Mode) port.Attachment {
	a := wish(mode)
	a.MTU, a.Options, a.ToGuest, a.FromGuest = 1500, port.Options{}, shape.Limit{}, shape.Limit{}
	a.Access.MultiQueue = false
	return a
}

// A guest that runs elsewhere speaks while it is removed here: its entry moves to the
// uplink and would be static there, for ever.
func TestRemoveWhileTheGuestSpeaksElsewhere(t *testing.T) {
	for _, table := range []port.Table{port.Static, port.Roaming} {
		t.Run(string(table), func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			a := plain(port.Veth)
			a.Table = table
			uplink := nstest.OpenLink(t, n.lan, "down0")
			defer uplink.Close()
			frame := nstest.Frame(bytes.Repeat([]byte{0xff}, 6), a.Guest.HardwareAddr(), 60, "elsewhere")
			var stop atomic.Bool
			spoken := make(chan int)
			go func() {
				frames := 0
				for !stop.Load() {
					if uplink.TrySend(frame) == nil {
						frames++
					}
					time.Sleep(100 * time.Microsecond)
				}
				spoken <- frames
			}()
			for range 15 {
				for attempt := 0; ; attempt++ {
					err := n.apply(a)
					if err == nil {
						break
					}
					if !errors.Is(err, ErrBusy) || attempt == 20 { // a frame was between entry and verification
						t.Fatal(err)
					}
				}
				if err := n.remove(a.ID); err != nil {
					t.Fatal(err)
				}
				if left := n.host.Run(t, "bridge", "fdb", "show", "br", "br0"); strings.Contains(left, a.Guest.String()+" dev up0 master br0 static") {
					t.Fatalf("left behind:\n%s", left)
				}
			}
			stop.Store(true)
			if frames := <-spoken; frames < 100 {
				t.Errorf("%d frames came from elsewhere: this test shows nothing", frames)
			}
		})
	}
}

// What was listed in a namespace is not deleted in the one that has its id by now.
func TestRemoveFromAnotherNamespace(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := plain(port.Veth)
	n.mustApply(a)
	other := nstest.New(t)
	nstest.Veth(t, n.host, "theirs", other, "eth0")
	n.site(func(s *Site) {
		links, err := s.pod.Links()
		if err != nil {
			t.Fatal(err)
		}
		mine := belonging(links, a.ID)
		there, err := rtnl.OpenAt(other.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer there.Close()
		if l, err := there.LinkNamed("eth0"); err != nil || len(mine) != 1 || l.Index != mine[0].Index {
			t.Fatalf("%v has index %d, ours is %+v: this test shows nothing", err, l.Index, mine)
		}
		if err := deleteAll(there, mine, a.Group(), grouped(links, a.Group())); err != nil {
			t.Error(err)
		}
		if _, there, err := find(there, "eth0"); err != nil || !there {
			t.Errorf("another pod's device is gone (%v)", err)
		}
	})
}

// A path that leads to another pod by now does not hide the right one.
func TestRemoveByAnotherPodsPath(t *testing.T) {
	eachMode(t, func(n *node, a port.Attachment) {
		before := n.world()
		n.mustApply(a)
		right := n.pod
		n.pod = nstest.New(n.T)
		if err := n.remove(a.ID); err != nil {
			n.Error(err)
		}
		n.pod = right
		n.wantWorld(before, "removed by another pod's path:")
	})
}

// The bridge that an ADD has found goes before it is used, as when the ADD that made
// it fails; or somebody makes the one that it was going to make.
func TestBridgeIsAnotherThanPlanned(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := plain(port.Veth)
	a.Bridge = "br1"
	before := n.world()
	n.site(func(s *Site) {
		first, second := a, a
		second.ContainerID, second.Guest = "other", mac.Addr{2, 0, 0, 0, 0, 9}
		want := bridge.Bridge{Name: "br1", MTU: 1500, DefaultPVID: 1}
		if err := s.Apply(first, want); err != nil {
			t.Fatal(err)
		}
		found, err := s.Bridge("br1")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Undo(first); err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(second, found); !errors.Is(err, ErrStale) {
			t.Errorf("on a bridge that has gone: %v, want %v", err, ErrStale)
		}
	})
	n.wantWorld(before, "refused:")
}

// An administrator who gives the bridge a port while an ADD is at it decides what MAC
// the bridge has.
func TestPinLeavesAnAdministratorsMAC(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	const uplinks = "02:00:00:00:99:99"
	n.hostRun("ip link add br1 type bridge", "ip link set br1 up", "ip link add eth9 address "+uplinks+" type veth peer name eth9p")
	a := plain(port.Veth)
	a.Bridge = "br1"
	n.site(func(s *Site) {
		br, err := s.Bridge("br1")
		if err != nil {
			t.Fatal(err)
		}
		var steps []step
		for _, next := range newWork(s, a, br).steps() {
			if next.name == "join the bridge" {
				steps = append(steps, step{name: "administrator", do: func() error {
					n.hostRun("ip link set eth9 master br1")
					return nil
				}})
			}
			steps = append(steps, next)
		}
		if err := run(steps); err != nil {
			t.Fatal(err)
		}
		if br, err = s.Bridge("br1"); err != nil || br.MAC.String() != uplinks {
			t.Errorf("the bridge has %s, %v, want its uplink's %s", br.MAC, err, uplinks)
		}
	})
}

// A look that fails is taken again when nobody is at it; where that takes too long, all
// the same, and the next does not wait at all.
func TestCalmlyWaits(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.site(func(s *Site) {
		unlock, err := lock("br0")
		if err != nil {
			t.Fatal(err)
		}
		var free atomic.Bool
		time.AfterFunc(100*time.Millisecond, func() {
			free.Store(true)
			if err := unlock(); err != nil {
				t.Error(err)
			}
		})
		wrong := errors.New("wrong")
		if err := s.Calmly("br0", func() error {
			if free.Load() {
				return nil
			}
			return wrong
		}); err != nil {
			t.Error(err)
		}
		release, err := lock("br0")
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		for _, want := range []int{2, 1} {
			looks := 0
			if err := s.Calmly("br0", func() error { looks++; return wrong }); !errors.Is(err, wrong) || looks != want {
				t.Errorf("under a lock that is kept: %v after %d looks, want %d", err, looks, want)
			}
		}
	})
}

// What an agent does to a port is no drift to who looks meanwhile.
func TestLookDuringPromotion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := plain(port.Tap)
	a.Promote = true
	n.mustApply(a)
	vmm := nstest.OpenTap(t, n.pod, a.TapName())
	defer vmm.Close()
	var stop atomic.Bool
	looked := make(chan bool)
	var looks atomic.Int32 // that would have been called drift
	watch := func() {
		s, err := OpenPod(n.pod.Path)
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		look := func() error {
			want, err := s.Want(a)
			if err != nil {
				return err
			}
			got, err := s.Observe(want)
			if err != nil {
				return err
			}
			return port.Diff(want, got)
		}
		for !stop.Load() {
			first := true
			err := s.Calmly(a.Bridge, func() error {
				err := look()
				if err != nil && first {
					looks.Add(1)
				}
				first = false
				return err
			})
			if err != nil {
				t.Error(err)
			}
			inspected, err := s.Inspect()
			if err != nil || len(inspected) != 1 || len(inspected[0].Wrong()) > 0 {
				t.Errorf("ports: %+v, %v", inspected, err)
			}
		}
	}
	go func() {
		defer close(looked)
		n.host.Do(watch)
	}()
	n.site(func(s *Site) {
		for round := 0; round < 10 || looks.Load() == 0 && round < 500; round++ {
			p, _, err := s.Named(a.PortName())
			if err != nil {
				t.Fatal(err)
			}
			if done, err := s.Promote(p); err != nil || !done {
				t.Fatal(done, err)
			}
			time.Sleep(10 * time.Millisecond)
			if err := s.Demote(p); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	stop.Store(true)
	if <-looked; looks.Load() == 0 {
		t.Error("no look met a promotion: this test shows nothing")
	}
}

// A pod's namespace goes while the guest's entry is at the uplink: with the port its
// record has gone, and only who had seen that before can remove the entry.
func TestOrphanedEntry(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := plain(port.Veth)
	a.Table = port.Static
	n.mustApply(a)
	n.hostRun("bridge fdb replace "+a.Guest.String()+" dev up0 master static", "ip link del "+a.PortName())
	entries := func() string { return n.host.Run(t, "bridge", "fdb", "show", "dev", "up0") }
	if before := entries(); !strings.Contains(before, a.Guest.String()) {
		t.Fatalf("the entry is not at the uplink:\n%s", before)
	}
	n.site(func(s *Site) {
		if err := s.RemoveOrphan(a); err != nil {
			t.Error(err)
		}
	})
	if left := entries(); strings.Contains(left, a.Guest.String()) {
		t.Errorf("left behind:\n%s", left)
	}
}
