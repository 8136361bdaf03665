package attach

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
)

// ErrUnfit says that a tap is not promoted because something is not as it must be
// for that. Nothing was changed.
var ErrUnfit = errors.New("not fit to be promoted")

// Want is the whole port that a should have, with the tap where it is now.
func (s *Site) Want(a port.Attachment) (port.Port, error) {
	_, there, err := s.promoted(a)
	if there {
		return a.WantPromoted(), err
	}
	return a.Want(), err
}

// promoted finds the tap on the host: that alone tells that it is promoted, or half
// of it is done. It may have another name there where the veth end is down.
func (s *Site) promoted(a port.Attachment) (rtnl.Link, bool, error) {
	if !a.Promote {
		return rtnl.Link{}, false, nil
	}
	l, there, err := find(s.host, a.PromotedName())
	if err != nil || there {
		return l, there && isTap(l) && ours(l, a.ID), err
	}
	idle, there, err := find(s.host, a.PortName())
	if err != nil || !there || idle.Up() {
		return rtnl.Link{}, false, err
	}
	l, there, err = s.strayTap(a.ID)
	return l, there && l.Name != a.TapName(), err // where the pod's namespace is the host's, it is at home
}

// strayTap looks for the tap among all devices of the host.
func (s *Site) strayTap(id port.ID) (rtnl.Link, bool, error) {
	links, err := s.host.Links()
	mine := belonging(links, id)
	i := slices.IndexFunc(mine, isTap)
	if i < 0 {
		return rtnl.Link{}, false, err
	}
	return mine[i], true, err
}

// Promotion is where a tap is.
type Promotion struct {
	OnHost   bool
	Held     bool // there, by a VMM
	Tampered bool // there it has another MAC address than it should
}

// Promotion finds the tap of p. Who has a tap open may change its MAC address without
// any privilege (drivers/net/tun.c, SIOCSIFHWADDR); that of a port takes a neighbour's
// entry away (net/bridge/br_fdb.c, fdb_add_local).
func (s *Site) Promotion(p Attached) (Promotion, error) {
	l, there, err := s.promoted(p.Attachment)
	if !there {
		return Promotion{}, err
	}
	return Promotion{OnHost: true, Held: l.Plugged(), Tampered: l.MAC() != p.Guest.Derived()}, err
}

// Sent is how many frames the VMM has sent into the tap in the pod so far, and
// whether there is one. It does without entering the pod.
func (s *Site) Sent(p Attached) (frames uint64, held bool, err error) {
	frames, held, err = s.host.Behind(p.Port.NetNsID).Received(p.TapName())
	return frames, held, ignoreMissing(err)
}

// Promote makes the tap of p the port itself, so that frames do not pass the veth
// pair any more, and reports whether it has. From the moment that the tap leaves the
// pod until the end nothing passes. Should any step fail, the tap is put back. s must
// have the pod's side. Errors: ErrBusy, ErrUnfit, and what the kernel says.
func (s *Site) Promote(p Attached) (done bool, err error) {
	err = s.standing(p, HostSide, func(r *repairs, found port.Differences) error {
		if r.want.Idle != nil {
			return nil // it is
		}
		if err := r.fit(found); err != nil {
			return err
		}
		err := run([]step{
			{"move the tap to the host", r.toHost, r.toPod},
			{name: "make it the port", do: r.takeOver},
		})
		done = err == nil
		return err
	})
	return done, err
}

// Demote puts the tap of p back into the pod under its old name, and makes the veth
// end the port again. It does nothing where the tap is not on the host. s must have
// the pod's side. Errors: ErrBusy, and what the kernel says.
func (s *Site) Demote(p Attached) error {
	return s.standing(p, HostSide, func(r *repairs, _ port.Differences) error { return r.toPod() })
}

// fit refuses a port of which not everything is known to be right: only then is what
// is moved to the host what ADD has made.
func (r *repairs) fit(found port.Differences) error {
	pod := newRepair(r.Site, r.p, PodSide)
	more, err := pod.look()
	if err != nil {
		return err
	}
	found = append(found, more...)
	if len(found) > 0 {
		return fmt.Errorf("%w: %s", ErrUnfit, found)
	}
	t, err := r.pod.LinkNamed(r.a.TapName())
	if err != nil {
		return err
	}
	br, err := r.host.LinkNamed(r.a.Bridge)
	if err != nil {
		return err
	}
	switch stp, _ := br.Data.Uint32(nl.IFLA_BR_STP_STATE); {
	case !r.a.Promote:
		return fmt.Errorf("%w: it was not asked for", ErrUnfit)
	case !t.Plugged():
		return fmt.Errorf("%w: no VMM has it open", ErrUnfit)
	case r.a.Table == port.Follow && !r.got.Entered():
		return fmt.Errorf("%w: its guest has not spoken", ErrUnfit)
	case stp != 0: // a new port would not forward for twice the forward delay
		return fmt.Errorf("%w: bridge %q takes part in a spanning tree", ErrUnfit, br.Name)
	}
	return r.vacantOnHost()
}

// vacantOnHost is vacant for the name that a promoted tap gets.
func (w *work) vacantOnHost() error {
	if !w.a.Promote {
		return nil
	}
	_, there, err := find(w.host, w.a.PromotedName())
	if there {
		err = fmt.Errorf("a device %q on the host, the name of the promoted tap, %w: DEL the attachment, or remove the device", w.a.PromotedName(), ErrExists)
	}
	return err
}

func (r *repairs) toHost() error {
	t, err := r.pod.LinkNamed(r.a.TapName())
	if err != nil {
		return err
	}
	if !(isTap(t) && ours(t, r.a.ID)) {
		return notTheTap(t.Name)
	}
	if err := r.pod.Move(t.Index, r.host, r.a.PromotedName()); err != nil {
		return fmt.Errorf("move tap %q to the host: %w", t.Name, err)
	}
	l, there, err := find(r.host, r.a.PromotedName())
	if there && !(isTap(l) && ours(l, r.a.ID)) {
		return r.sendBack(l)
	}
	return err
}

// sendBack returns what somebody in the pod has put in the place of the tap after the
// comparison: as no port of ours, it would stay on the host for ever. Where both its
// names are taken in the pod again, it is deleted.
func (r *repairs) sendBack(l rtnl.Link) error {
	err := r.host.Move(l.Index, r.pod, r.a.TapName())
	if err != nil {
		err = ignoreMissing(r.host.Delete(l.Index))
	}
	return errors.Join(notTheTap(r.a.TapName()), err)
}

func notTheTap(name string) error {
	return fmt.Errorf("%w: somebody in the pod has put another device in the place of tap %q", ErrUnfit, name)
}

// takeOver makes the port of the tap as repair would: it is up last.
func (r *repairs) takeOver() error {
	if _, err := r.look(); err != nil {
		return err
	}
	if err := r.repairHost(); err != nil {
		return err
	}
	left, err := r.look()
	if err == nil && len(left) > 0 {
		err = &port.Drift{Port: r.a.PortName(), Differences: left}
	}
	return err
}

// toPod gives the entry back first, so that the guest has one port at any time. A
// DEL, which takes no lock, may come at any moment of this: where the port has gone,
// so must the tap.
func (r *repairs) toPod() error {
	t, there, err := r.onHost()
	if err != nil || !there {
		return err
	}
	if _, err := r.host.LinkAt(r.p.Port.Index); err != nil {
		return r.endWithPort(err)
	}
	if err := r.giveBack(t); err != nil {
		return err
	}
	if err := r.host.Move(t.Index, r.pod, r.a.TapName()); err != nil {
		return r.endStranded(fmt.Errorf("move tap %q back to the pod: %w", t.Name, err))
	}
	for _, side := range []Side{PodSide, HostSide} {
		back := newRepair(r.Site, r.p, side)
		if _, err := back.look(); err != nil {
			return err
		}
		if err := back.repair(); err != nil && !errors.Is(err, ErrTaken) { // which the next comparison says as well
			return r.endWithPort(err)
		}
	}
	if r.a.Guarded {
		if err := exclusively(guardLock, func() error { return r.removeGuard(r.a.PromotedName()) }); err != nil {
			return r.endWithPort(err)
		}
	}
	_, err = r.host.LinkAt(r.p.Port.Index)
	return r.endWithPort(err)
}

// endStranded deletes a tap of which somebody in the pod has taken both names: who has it
// open would keep a port like that, whatever he does to it. Where one is free, it is in
// the pod by now.
func (r *repairs) endStranded(err error) error {
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	t, there, findErr := r.promoted(r.a)
	if findErr != nil || !there {
		return errors.Join(err, findErr)
	}
	if deleteErr := ignoreMissing(r.host.Delete(t.Index)); deleteErr != nil {
		return errors.Join(err, deleteErr)
	}
	return fmt.Errorf("%w: the tap was deleted, since somebody in the pod has taken both its names: delete the pod", err)
}

// giveBack writes the guest's entry to the veth end, unless the guest is waited for
// now that its VMM has gone, has taken its entry along to another port, or somebody
// else has its address by now.
func (r *repairs) giveBack(t rtnl.Link) (err error) {
	r.want = r.a.Want()
	if r.want.Waits() && t.Plugged() {
		r.want = r.want.Running()
	}
	if r.want.FDB == nil || r.want.Waits() || r.p.Port.MasterIndex == 0 {
		return nil
	}
	r.port = r.p.Port.Index
	away := false
	if r.br, err = bridge.Find(r.host, r.a.Bridge); err == nil {
		away, err = r.away(t)
	}
	if err == nil && !away {
		err = r.reclaimEntry()
	}
	if errors.Is(err, bridge.ErrNotFound) || errors.Is(err, ErrTaken) {
		return nil
	}
	return err
}

// away reports whether a roaming guest's entry is neither at its tap nor at the port.
func (r *repairs) away(t rtnl.Link) (bool, error) {
	if r.a.Table != port.Roaming {
		return false, nil
	}
	for _, e := range r.want.FDB {
		found, there, err := fdb.Lookup(r.host, r.br.Index, e.MAC, e.VLAN)
		if err != nil || there && found.Index != t.Index && found.Index != r.port {
			return err == nil, err
		}
	}
	return false, nil
}

// onHost also finds a tap that could not be given its name there.
func (r *repairs) onHost() (rtnl.Link, bool, error) {
	l, there, err := r.promoted(r.a)
	if err != nil || there {
		return l, there, err
	}
	return r.strayTap(r.a.ID)
}

// endWithPort removes what is left where the port has gone.
func (r *repairs) endWithPort(err error) error {
	if _, gone := r.host.LinkAt(r.p.Port.Index); rtnl.IsNotExist(gone) {
		return r.remove(r.a.ID)
	}
	return err
}

// standIn makes ready to change the port that is the tap, by its name first. A bridge
// must be there: what a tap without one lets in would be for the node itself.
func (r *repairs) standIn() error {
	l, there, err := r.promoted(r.a)
	if err != nil || !there {
		return err
	}
	if l.Name != r.want.Name {
		if err := r.rename(r.host, l, r.want.Name); err != nil {
			return err
		}
		if _, err := r.look(); err != nil {
			return err
		}
	}
	r.port = l.Index
	if !l.Up() {
		if err := alone(l); err != nil {
			return err
		}
	}
	_, err = bridge.Find(r.host, r.a.Bridge)
	return err
}

// alone refuses what somebody in the pod may have put on the tap and what comes along
// with it: names that the host may want, and programs, which would see the guest's
// frames before the bridge does, and send them where they like.
func alone(l rtnl.Link) error {
	hooked, err := redirect.Hooked(l.Index)
	switch {
	case err != nil:
		return err
	case l.AltNames:
		return fmt.Errorf("tap %q: somebody in the pod has given it other names", l.Name)
	case l.XDP || hooked:
		return fmt.Errorf("tap %q: somebody in the pod has attached a program to it", l.Name)
	}
	return nil
}

// rest are the changes to the veth end that the tap stands in for.
func (r *repairs) rest() []fix {
	if r.want.Idle == nil || r.got.Idle == nil {
		return nil
	}
	idle := placed{r.want.Idle, r.host, r.p.Port.Index}
	return append(still(idle, *r.got.Idle), fix{r.got.Idle.Up, idle.lower})
}

func (s *Site) observeIdle(want port.Port, got *port.Port, end rtnl.Link) (err error) {
	if want.Idle == nil {
		return nil
	}
	got.Held = end.Plugged()
	idle, there, err := find(s.host, want.Idle.Name)
	if err != nil || !there {
		return err
	}
	got.Idle, err = device(s.host, idle, want.Idle)
	return err
}
