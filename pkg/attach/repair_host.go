package attach

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
)

// repairHost begins with the name, without which nothing else is seen. The port
// goes up last, as in Apply.
func (r *repairs) repairHost() error {
	if name := r.a.PortName(); r.p.Port.Name != name {
		if err := r.rename(r.host, r.p.Port, name); err != nil {
			return err
		}
		if _, err := r.look(); err != nil {
			return err
		}
	}
	if r.want.Idle != nil {
		if err := r.standIn(); err != nil {
			return err
		}
	}
	if r.got.End == nil {
		return nil // removed since
	}
	end := r.end()
	membership, rejoins, err := r.membership()
	if err != nil {
		return err
	}
	limits, err := r.limit()
	if err != nil {
		return err
	}
	reguard := fix{r.want.Guard != nil && (r.got.Guard == nil || *r.got.Guard != *r.want.Guard), r.reguard}
	up := fix{rejoins || !r.got.End.Up, end.raise}
	return r.run(slices.Concat(still(end, *r.got.End), membership, limits, []fix{reguard}, r.rest(), []fix{up})...)
}

// membership are the changes that make the port one of its bridge again. Where it
// has to join, it is down until it has its flags. They are none where the bridge
// is missing, or where it would mix the guest's VLANs with others; a bridge that
// comes, or changes, is seen.
func (r *repairs) membership() (fixes []fix, rejoins bool, err error) {
	r.br, err = bridge.Find(r.host, r.a.Bridge)
	if errors.Is(err, bridge.ErrNotFound) || errors.Is(err, bridge.ErrNotBridge) {
		return nil, false, nil
	}
	if err != nil || r.want.Bridge.VLANs != "" && !r.br.VLANAware {
		return nil, false, err
	}
	want, got := r.want.Bridge, r.got.Bridge
	rejoins = want.Bridge != got.Bridge
	return []fix{
		{rejoins, r.unclaimed},
		{rejoins, r.end().lower},
		{rejoins, r.join},
		{rejoins || flags(want) != flags(got), r.setFlags},
		{!rejoins && !want.Learning && got.Learning, func() error { return bridge.Flush(r.host, r.port) }},
		{want.VLANs != "" && (rejoins || want.VLANs != got.VLANs), r.setVLANs},
		{r.want.FDB != nil && !r.want.Waits() && (rejoins || r.entriesDiffer()), r.reclaimEntry},
		{r.want.Waits() && r.strayed(), r.removeStray},
		{!rejoins && got.Blocked, func() error { return bridge.Unblock(r.host, r.port) }},
	}, rejoins, nil
}

func flags(p bridge.Port) bridge.Port {
	p.Bridge, p.VLANs, p.Blocked = "", "", false
	return p
}

func (r *repairs) entriesDiffer() bool {
	have := map[uint16]fdb.Entry{}
	for _, e := range r.got.FDB {
		have[e.VLAN] = e
	}
	for _, e := range r.want.FDB {
		if found, there := have[e.VLAN]; !there || found != e.Given(found) {
			return true
		}
	}
	return false
}

// reclaimEntry takes the entry back from a port to which a frame or a person has
// moved it, but not where another guest or device has that address.
func (r *repairs) reclaimEntry() error {
	for _, e := range r.want.FDB {
		found, there, err := fdb.Lookup(r.host, r.br.Index, e.MAC, e.VLAN)
		if err != nil {
			return err
		}
		if !there || found.Index == r.port {
			continue
		}
		if err := r.mayTake(found); err != nil {
			return err
		}
	}
	return r.writeEntry()
}

func (r *repairs) mayTake(found fdb.Found) error {
	holder, err := r.host.LinkAt(found.Index)
	if err != nil {
		return ignoreMissing(err)
	}
	if found.State == fdb.Local {
		return fmt.Errorf("MAC %s of the guest is that of %q: %w", found.MAC, holder.Name, ErrTaken)
	}
	return r.conflict(holder)
}

// unclaimed is claim for a port that was on the bridge before: a static entry for
// its guest is its own, which has moved.
func (r *repairs) unclaimed() error {
	derived := r.a.Guest.Derived()
	for _, m := range []mac.Addr{r.a.Guest, derived, derived.Derived()} {
		found, there, err := fdb.Lookup(r.host, r.br.Index, m, 0)
		if err != nil {
			return err
		}
		if !there || found.State == fdb.Learned {
			continue
		}
		if m != r.a.Guest {
			err = r.conflictOnAnyPort()
		} else {
			err = r.mayTake(found)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *repairs) end() placed { return placed{r.want.End, r.host, r.port} }

// limit are the changes to what limits the guest's frames. The ifb is the only
// device that is made anew: nobody can have it open, and without it the redirect
// to it drops what the guest sends.
func (r *repairs) limit() (fixes []fix, err error) {
	want, got := r.want.IFB, r.got.IFB
	if want == nil {
		return nil, nil
	}
	if got == nil {
		got = &port.Device{Name: want.Name, Kind: want.Kind, MAC: want.MAC, MTU: want.MTU, Record: want.Record, Queue: want.Queue}
		fixes = []fix{{true, r.remakeIFB}}
	} else {
		l, there, err := find(r.host, want.Name)
		if err != nil || !there || !ours(l, r.a.ID) {
			return nil, err
		}
		r.ifb = l.Index
	}
	remade := r.ifb == 0
	then := func(do func(placed) error) func() error { // its index is known by then
		return func() error { return do(placed{want, r.host, r.ifb}) }
	}
	return append(fixes,
		fix{undressed(*want, *got), then(func(d placed) error { return d.dress(*got) })},
		fix{!got.Muted, then(placed.mute)},
		fix{remade || *got.Queue != *want.Queue, then(placed.setQueue)},
		fix{!got.Up, then(placed.raise)},
		fix{remade || !r.got.Diverted, r.redivert},
	), nil
}

// remakeIFB gives up where the port has gone meanwhile: DEL takes no lock, and deletes
// the ifb first. Where the port goes right after this look, the ifb is an orphan.
func (r *repairs) remakeIFB() error {
	if err := r.createIFB(); err != nil {
		return err
	}
	if _, err := r.host.LinkAt(r.port); err != nil {
		return errors.Join(err, r.removeIFB(r.a.ID))
	}
	return nil
}

func (r *repairs) redivert() error {
	if err := redirect.Clear(r.host, r.port); err != nil {
		return fmt.Errorf("%q: %w", r.want.Name, err)
	}
	if err := r.divert(); err != nil {
		return fmt.Errorf("redirect from %q: %w", r.want.Name, err)
	}
	return nil
}

// reguard gives the guest the addresses that it was seen with. Where nobody has seen
// them, they are not made up: the guest would be mute, or somebody else. DEL takes no
// lock for the bridge: a port that it has removed meanwhile is forgotten again.
func (r *repairs) reguard() error {
	return exclusively(guardLock, func() error {
		list, err := r.addresses()
		if err != nil {
			return err
		}
		if err := guard.Close(r.host, r.want.Name, r.a.Guest, list); err != nil {
			return err
		}
		if _, err := r.host.LinkAt(r.port); err != nil {
			return errors.Join(err, guard.Remove(r.host, r.want.Name))
		}
		return nil
	})
}

// addresses are those that the guest has, which ADD may have told since the look: Admit
// waits for no repair. A promoted tap has those of the port that it stands in for.
func (r *repairs) addresses() (string, error) {
	now, err := guard.Observe(r.host)
	if err != nil {
		return "", err
	}
	list, seen := r.want.Guard.Addresses, r.p.Seen != nil
	for _, name := range []string{r.want.Name, r.a.PortName()} {
		g, there := now[name]
		list, seen = cmp.Or(list, g.Addresses), seen || there
	}
	if !seen {
		return "", fmt.Errorf("guard of port %q: which addresses the guest had is not known any more: delete its pod, or DEL and ADD", r.want.Name)
	}
	return list, nil
}

// RemoveOrphan deletes what is left of an attachment whose port has gone, as DEL would:
// the ifb, a promoted tap that no VMM has open, and entries that have moved. With the
// port its record has gone: DEL knows nothing of those any more.
func (s *Site) RemoveOrphan(a port.Attachment) error {
	unlock, err := lockWithin(a.Bridge, repairWait)
	if err != nil {
		return err
	}
	defer unlock()
	if _, there, err := find(s.host, a.PortName()); err != nil || there {
		return err
	}
	err = errors.Join(s.removeAbandoned(a), s.removeIFB(a.ID))
	br, findErr := bridge.Find(s.host, a.Bridge)
	if errors.Is(findErr, bridge.ErrNotFound) || errors.Is(findErr, bridge.ErrNotBridge) {
		return err
	}
	return errors.Join(err, findErr, s.removeMovedEntries(a, br.Index))
}
