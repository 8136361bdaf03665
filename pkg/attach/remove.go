package attach

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/dan"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Remove deletes every device and entry of an attachment that is still there,
// and its description for Kata, and nothing else. It needs nothing but the
// identity: what was built is read from the kernel. A part that cannot be removed
// does not keep the others, but for the port: by that, and the record on it, the
// next try finds the rest. Errors: ErrBusy, when masquerade rules are being made
// for too long; those of dan.Folder.Remove; why the pod's namespace cannot be
// entered, where nothing else leads to what may be in it.
func (s *Site) Remove(id port.ID) error {
	r, err := newRemoval(s, id)
	if err != nil {
		return err
	}
	err = errors.Join(
		dan.Kata.Remove(id.ContainerID, id.PortName()),
		r.unmasquerade(),
		r.removeAround())
	if err != nil && r.end != nil {
		return err
	}
	return errors.Join(err, r.removePort())
}

// remove is Remove for the devices alone.
func (s *Site) remove(id port.ID) error {
	r, err := newRemoval(s, id)
	if err == nil {
		err = r.removeAround()
	}
	if err != nil {
		return err
	}
	return r.removePort()
}

// removal is one Remove under way.
type removal struct {
	*Site
	id     port.ID
	end    *rtnl.Link       // the port; nil: it has gone
	record *port.Attachment // on the port; nil: none, and whatever can have been made is looked for
}

func newRemoval(s *Site, id port.ID) (*removal, error) {
	r := &removal{Site: s, id: id}
	end, there, err := s.portOf(id)
	if err != nil || !there {
		return r, err
	}
	r.end = &end
	if a, err := port.ParseRecord(end.Alias); err == nil {
		r.record = &a
	}
	return r, nil
}

// removeAround removes the devices and entries that are not the port. The pod's
// side is the last of them: a veth end takes the port along.
func (r *removal) removeAround() error {
	if err := r.removePromoted(); err != nil {
		return err
	}
	if err := r.releaseEntries(); err != nil {
		return err
	}
	removed, err := r.removePodSide()
	if err == nil && r.record != nil && r.record.Mode == port.Tap && !slices.ContainsFunc(removed, isTap) {
		err = r.removeStrayTap(r.id)
	}
	if err == nil && r.end != nil { // a node agent may just have moved it
		err = r.removePromoted()
	}
	return err
}

func (r *removal) removePromoted() error {
	if r.record != nil && !r.record.Promote {
		return nil
	}
	return r.deletePromoted(r.id)
}

// deletePromoted deletes the tap where it is on the host.
func (s *Site) deletePromoted(id port.ID) error {
	l, found, err := find(s.host, id.PromotedName())
	if err != nil || !found || !isTap(l) || !ours(l, id) {
		return err
	}
	if err := ignoreMissing(s.host.Delete(l.Index)); err != nil {
		return fmt.Errorf("delete tap %q: %w", l.Name, err)
	}
	return nil
}

// removeAbandoned deletes a tap whose port has gone, unless a VMM has it open.
func (s *Site) removeAbandoned(a port.Attachment) error {
	l, there, err := s.promoted(a)
	if err != nil || !there || l.Plugged() {
		return err
	}
	return s.deletePromoted(a.ID)
}

// removeStrayTap looks on the host for a tap that somebody has moved there.
func (s *Site) removeStrayTap(id port.ID) error {
	links, err := s.host.Links()
	if err != nil {
		return err
	}
	stray := slices.DeleteFunc(belonging(links, id), func(l rtnl.Link) bool { return !isTap(l) })
	return deleteAll(s.host, stray, id.Group(), grouped(links, id.Group()))
}

func (s *Site) removeIFB(id port.ID) error {
	l, there, err := find(s.host, id.IFBName())
	if err != nil || !there || !ours(l, id) {
		return err
	}
	if err := ignoreMissing(s.host.Delete(l.Index)); err != nil {
		return fmt.Errorf("delete %q: %w", l.Name, err)
	}
	return nil
}

// removePort finds a veth end gone with its peer by now, unless the peer was
// elsewhere. Its ifb and its guard go after it: they are found by the port's name,
// a node agent would make the ifb of a port anew, and a port that cannot be removed
// stays guarded.
func (r *removal) removePort() error {
	if r.end != nil {
		if err := ignoreMissing(r.host.Delete(r.end.Index)); err != nil {
			return fmt.Errorf("delete port %q: %w", r.end.Name, err)
		}
	}
	return errors.Join(r.removeIFB(r.id), r.unguard())
}

// releaseEntries takes the guest's entries from the port, in each VLAN that it has,
// though they would go with it: until it has gone, a frame elsewhere could move them.
func (r *removal) releaseEntries() (err error) {
	if r.record == nil || r.end.MasterIndex == 0 {
		return nil
	}
	a := *r.record
	if a.Table != port.Kernel && a.Table != port.Sticky {
		err = ignoreMissing(fdb.Delete(r.host, r.end.Index, fdb.Entry{MAC: a.Guest}))
	}
	return errors.Join(err, r.removeMovedEntries(a, r.end.MasterIndex))
}

// removeMovedEntries deletes the guest's entries where a frame on another port has
// taken them: the kernel keeps them static there, for good. An entry on a port with a
// guest of that address is that guest's.
func (s *Site) removeMovedEntries(a port.Attachment, bridge int) (err error) {
	for _, e := range a.Want().FDB {
		err = errors.Join(err, ignoreMissing(s.removeMoved(e, bridge)))
	}
	return err
}

func (s *Site) removeMoved(e fdb.Entry, bridge int) error {
	found, there, err := fdb.Lookup(s.host, bridge, e.MAC, e.VLAN)
	if err != nil || !there || found.State != fdb.Static {
		return err
	}
	holder, err := s.host.LinkAt(found.Index)
	if err != nil {
		return err
	}
	if other, err := port.ParseRecord(holder.Alias); err == nil && other.Guest == e.MAC {
		return nil // ours, which goes with the port, is among them
	}
	return fdb.Delete(s.host, found.Index, found.Entry)
}

// side is one network namespace as links can be listed and deleted in it.
type side interface {
	Links() ([]rtnl.Link, error)
	Delete(index int) error
	DeleteGroup(group uint32) error
}

// podSide reaches the pod's devices: through its namespace, or when that is not
// known, through the port's veth peer, whose namespace the kernel knows by id.
// nil when there is neither.
func (r *removal) podSide() side {
	switch {
	case r.pod != nil:
		return r.pod
	case r.end != nil && r.end.NetNsID >= 0:
		return r.host.Behind(r.end.NetNsID)
	}
	return nil
}

// removePodSide deletes the attachment's devices in the pod, and tells which.
func (r *removal) removePodSide() ([]rtnl.Link, error) {
	pod := r.podSide()
	if pod == nil {
		return nil, r.unreached()
	}
	links, err := pod.Links()
	if err == nil && r.pod != nil && r.end != nil && r.end.NetNsID >= 0 && elsewhere(belonging(links, r.id), *r.end) {
		pod = r.host.Behind(r.end.NetNsID)
		links, err = pod.Links()
	}
	if err != nil {
		return nil, ignoreMissing(err)
	}
	mine := belonging(links, r.id)
	return mine, deleteAll(pod, mine, r.id.Group(), grouped(links, r.id.Group()))
}

// elsewhere reports whether the path to a pod does not lead to it: nothing of the
// attachment's is there, or its port, since that is the host's namespace.
func elsewhere(mine []rtnl.Link, end rtnl.Link) bool {
	return len(mine) == 0 || slices.ContainsFunc(mine, func(l rtnl.Link) bool { return l.Index == end.Index && l.Name == end.Name })
}

// unreached is the error for a pod's namespace that is there, may hold something of
// the attachment's, and cannot be reached.
func (r *removal) unreached() error {
	if r.noEntry == nil || r.end != nil && isTap(*r.end) { // mode host-tap has nothing in the pod
		return nil
	}
	return fmt.Errorf("only its network namespace leads to what may be left in the pod: %w", r.noEntry)
}

// grouped counts the links of a group.
func grouped(links []rtnl.Link, group uint32) (n int) {
	for _, l := range links {
		if l.Group == group {
			n++
		}
	}
	return n
}

// deleteAll removes the links in one transaction when they are what their group
// holds in all: in a namespace that has taken the place of the pod's there is no such
// group. Otherwise it removes them one by one: the veth end last, since the port goes
// with it.
func deleteAll(in side, links []rtnl.Link, group uint32, inGroup int) (err error) {
	if len(links) > 0 && grouped(links, group) == len(links) && inGroup == len(links) {
		if err := ignoreMissing(in.DeleteGroup(group)); err != nil {
			return fmt.Errorf("delete the devices of group %d: %w", group, err)
		}
		return nil
	}
	slices.SortFunc(links, func(a, b rtnl.Link) int { return cmp.Compare(rank(a), rank(b)) })
	for _, l := range links {
		if err != nil && isVeth(l) {
			return err // by the port the next try finds the rest
		}
		if e := ignoreMissing(in.Delete(l.Index)); e != nil {
			err = errors.Join(err, fmt.Errorf("delete %q: %w", l.Name, e))
		}
	}
	return err
}

func rank(l rtnl.Link) int {
	if isVeth(l) {
		return 1
	}
	return 0
}

func ignoreMissing(err error) error {
	if rtnl.IsNotExist(err) {
		return nil
	}
	return err
}
