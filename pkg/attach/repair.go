package attach

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Side is where devices of an attachment are. Each can be compared and repaired
// without the other.
type Side string

// The sides.
const (
	HostSide Side = "host" // the port, its membership of the bridge, its entry, its ifb
	PodSide  Side = "pod"  // the pod interface, the tap, what passes frames between them
)

// SidesOf are those of an attachment that can be repaired. In mode veth the pod's
// side is left to the pod: KubeVirt's bindings and Kata rename what they find there
// and give it other addresses.
func SidesOf(a port.Attachment) []Side {
	if a.Mode == port.Tap {
		return []Side{HostSide, PodSide}
	}
	return []Side{HostSide}
}

// repairWait bounds the wait for an ADD or DEL on the bridge.
const repairWait = time.Second

// Repaired is what Repair has found and done.
type Repaired struct {
	Found port.Differences // none: somebody else has put it right, or removed it
	Left  port.Differences // what still differs of that; what has come meanwhile is an event of its own
	Acted bool             // something was changed
	Gone  bool             // a device in the pod is missing, or a stranger's is in its place: a new pod has it again
}

// Compare lists how one side of p differs from its record, and changes nothing.
// Two differences are none to it: see tolerate.
func (s *Site) Compare(p Attached, side Side) (port.Differences, error) {
	_, _, differences, err := s.compare(p, side)
	return differences, err
}

// Repair makes one side of p as its record says, by the smallest changes that do.
// It makes no device but an ifb, which nobody can have open, deletes none, and
// changes none that is not ours. Errors: ErrBusy, ErrTaken when the guest's MAC
// address has been given to somebody else meanwhile, and what the kernel says; what
// was found and is left is valid all the same.
func (s *Site) Repair(p Attached, side Side) (r Repaired, err error) {
	err = s.standing(p, side, func(w *repairs, found port.Differences) error {
		r.Found = found
		if len(found) == 0 {
			return nil
		}
		err := w.repair()
		r.Acted, r.Gone = w.acted, w.gone
		now, lookErr := w.look()
		r.Left = slices.DeleteFunc(now, func(d port.Difference) bool {
			return !slices.ContainsFunc(found, func(f port.Difference) bool { return f.Field == d.Field })
		})
		return errors.Join(err, ignoreMissing(lookErr))
	})
	return r, err
}

// Confirm is Compare under the lock, so that no ADD under way is taken for a
// difference; none where the port has gone meanwhile. Errors: ErrBusy.
func (s *Site) Confirm(p Attached, side Side) (differences port.Differences, err error) {
	err = s.standing(p, side, func(_ *repairs, found port.Differences) error {
		differences = found
		return nil
	})
	return differences, err
}

// standing calls f under the lock if the port is still there.
func (s *Site) standing(p Attached, side Side, f func(w *repairs, found port.Differences) error) error {
	unlock, err := lockWithin(p.Bridge, repairWait)
	if err != nil {
		return err
	}
	defer unlock()
	p, there, err := s.Seek(p)
	if err != nil || !there {
		return err
	}
	w := newRepair(s, p, side)
	found, err := w.look()
	if err != nil {
		return err
	}
	return f(w, found)
}

// compare also returns what is wanted of that side, with what is tolerated.
func (s *Site) compare(p Attached, side Side) (want, got port.Port, differences port.Differences, err error) {
	whole, err := s.Want(p.Attachment)
	if err != nil {
		return want, got, nil, err
	}
	want = wanted(whole, side)
	got = port.Port{Name: want.Name}
	if side == HostSide {
		err = s.observeHost(want, &got)
	} else {
		err = s.observePod(want, &got)
	}
	if err != nil {
		return want, got, nil, fmt.Errorf("observe the %s's side of port %q: %w", side, want.Name, err)
	}
	tolerate(p, &want, &got)
	want = want.Like(got)
	return want, got, p.named(differencesOf(port.Diff(want, got))), nil
}

// named says of a port that somebody has renamed just that: by its own name it is missing.
func (p Attached) named(d port.Differences) port.Differences {
	const whole = "port" // the Field where all of it is missing
	i := slices.IndexFunc(d, func(one port.Difference) bool { return one.Field == whole })
	if i >= 0 && p.Port.Index != 0 && p.Port.Name != p.PortName() {
		d[i] = port.Difference{Text: fmt.Sprintf("name is %q, want %q", p.Port.Name, p.PortName()), Field: "port name"}
	}
	return d
}

func differencesOf(err error) port.Differences {
	var drift *port.Drift
	if errors.As(err, &drift) {
		return drift.Differences
	}
	return nil
}

// wanted is the part of the whole port that is at one side.
func wanted(whole port.Port, side Side) port.Port {
	pod := port.Port{Name: whole.Name, Pod: whole.Pod, Tap: whole.Tap, Redirect: whole.Redirect}
	if whole.Tap != nil {
		pod.Access, whole.Access = whole.Access, nil
	}
	if side == PodSide {
		return pod
	}
	whole.Pod, whole.Tap, whole.Redirect, whole.DAN = nil, nil, nil, nil
	return whole
}

// tolerate takes for right what others may change, or only they know: a plugin after
// us in the chain may have changed the MTU of the pod interface, and the addresses of a
// guarded guest come from the runtime.
func tolerate(p Attached, want, got *port.Port) {
	if want.Pod != nil && got.Pod != nil {
		want.Pod.MTU = got.Pod.MTU
	}
	if want.Guard != nil {
		want.Guard.Addresses = known(p.Seen, got.Guard)
	}
}

// known are the addresses of a guarded guest: those that it was seen with, but for a
// look that came before IPAM had told them.
func known(seen, now *guard.Guard) string {
	for _, g := range []*guard.Guard{seen, now} {
		if g != nil && g.Addresses != "" {
			return g.Addresses
		}
	}
	return ""
}

// repairs is one Repair under way: steps of Apply, of which each is taken only
// where something differs.
type repairs struct {
	*work
	p     Attached
	side  Side
	got   port.Port
	acted bool
	gone  bool // see Repaired
}

func newRepair(s *Site, p Attached, side Side) *repairs {
	w := newWork(&Site{host: s.host, pod: s.pod}, p.Attachment, bridge.Bridge{})
	w.port = p.Port.Index
	return &repairs{work: w, p: p, side: side}
}

func (r *repairs) look() (differences port.Differences, err error) {
	r.want, r.got, differences, err = r.compare(r.p, r.side)
	return differences, err
}

func (r *repairs) repair() error {
	if r.side == PodSide {
		return r.repairPod()
	}
	return r.repairHost()
}

// fix is a change, and whether it is needed.
type fix struct {
	needed bool
	do     func() error
}

// run makes the changes that are needed, in order, up to the first that fails: a
// port whose flags could not be set must not go up.
func (r *repairs) run(fixes ...fix) error {
	for _, f := range fixes {
		if !f.needed {
			continue
		}
		r.acted = true
		if err := f.do(); err != nil {
			return err
		}
	}
	return nil
}

// rename gives a device of ours its name back. A kernel before 6.2 wants it down
// for that (net/core/dev.c, dev_change_name); it is set up later, since it is then
// found to be down.
func (r *repairs) rename(c *rtnl.Conn, l rtnl.Link, name string) error {
	r.acted = true
	to := nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name))
	err := c.SetLink(l.Index, to)
	if errors.Is(err, unix.EBUSY) {
		if err = c.SetDown(l.Index); err == nil {
			err = c.SetLink(l.Index, to)
		}
	}
	if err != nil {
		return fmt.Errorf("rename %q to %q: %w", l.Name, name, err)
	}
	return nil
}

// still are the changes to a device but for up, which comes last.
func still(d placed, got port.Device) []fix {
	return []fix{
		{undressed(*d.wanted, got), func() error { return d.dress(got) }},
		{d.wanted.Muted && !got.Muted, d.mute},
		{got.Addresses != d.wanted.Addresses, d.strip},
		{d.wanted.Queue != nil && got.Queue != nil && *got.Queue != *d.wanted.Queue, d.setQueue},
	}
}
