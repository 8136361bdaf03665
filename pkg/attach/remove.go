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
	"github.com/tapbridge/tapbridge/pkg/redirect"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// Remove deletes every device and entry of an attachment that is still there,
// and its description for Kata, and nothing else. It needs nothing but the
// identity: what was built is read from the kernel. A part that cannot be removed
// does not keep the others, but for the port: by that, and the record on it, the
// next try finds the rest. Errors: ErrBusy, when masquerade rules are being made
// for too long; those of dan.Folder.Remove; why the pod's namespace cannot be
// entered, where nothing else leads to what may be in it.
func (s *Site) Remove(id port.ID) error {
	end, there, err := s.portOf(id)
	if err != nil {
		return err
	}
	err = errors.Join(
		dan.Kata.Remove(id.ContainerID, id.PortName()),
		s.unmasquerade(id, end, there),
		s.removeAround(id, end, there))
	if err != nil && there {
		return err
	}
	return errors.Join(err, s.removePort(id, end, there))
}

// remove is Remove for the devices alone.
func (s *Site) remove(id port.ID) error {
	end, there, err := s.portOf(id)
	if err == nil {
		err = s.removeAround(id, end, there)
	}
	if err != nil {
		return err
	}
	return s.removePort(id, end, there)
}

// removeAround removes the devices and entries that are not the port. The pod's
// side is the last of them: a veth end takes the port along.
func (s *Site) removeAround(id port.ID, end rtnl.Link, there bool) error {
	if err := s.removePromoted(id, end, there); err != nil {
		return err
	}
	if !there {
		_, err := s.removePodSide(id, nil)
		return err
	}
	if err := s.releaseEntries(end); err != nil {
		return err
	}
	removed, err := s.removePodSide(id, &end)
	if a, noRecord := port.ParseRecord(end.Alias); err == nil && noRecord == nil && a.Mode == port.Tap && !slices.ContainsFunc(removed, isTap) {
		err = s.removeStrayTap(id)
	}
	if err == nil { // a node agent may just have moved it
		err = s.removePromoted(id, end, there)
	}
	return err
}

func isTap(l rtnl.Link) bool { return l.Kind == tap.Kind }

func isVeth(l rtnl.Link) bool { return l.Kind == redirect.Kind }

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
func (s *Site) removePort(id port.ID, end rtnl.Link, there bool) error {
	if there {
		if err := ignoreMissing(s.host.Delete(end.Index)); err != nil {
			return fmt.Errorf("delete port %q: %w", end.Name, err)
		}
	}
	return errors.Join(s.removeIFB(id), s.unguard(id, end, there))
}

// releaseEntries takes the guest's entries from the port, in each VLAN that it has,
// though they would go with it: until it has gone, a frame elsewhere could move them.
func (s *Site) releaseEntries(end rtnl.Link) error {
	a, err := port.ParseRecord(end.Alias)
	if err != nil || end.MasterIndex == 0 {
		return nil
	}
	if a.Table != port.Kernel && a.Table != port.Sticky {
		err = ignoreMissing(fdb.Delete(s.host, end.Index, fdb.Entry{MAC: a.Guest}))
	}
	return errors.Join(err, s.removeMovedEntries(a, end.MasterIndex))
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
func (s *Site) podSide(end *rtnl.Link) side {
	switch {
	case s.pod != nil:
		return s.pod
	case end != nil && end.NetNsID >= 0:
		return s.host.Behind(end.NetNsID)
	}
	return nil
}

// removePodSide deletes the attachment's devices in the pod, and tells which. end
// is its port, if it is there.
func (s *Site) removePodSide(id port.ID, end *rtnl.Link) ([]rtnl.Link, error) {
	pod := s.podSide(end)
	if pod == nil {
		return nil, s.unreached(end)
	}
	mine, err := removeIn(pod, id)
	if err == nil && len(mine) == 0 && s.pod != nil && end != nil && end.NetNsID >= 0 { // the path leads elsewhere
		mine, err = removeIn(s.host.Behind(end.NetNsID), id)
	}
	return mine, err
}

func removeIn(pod side, id port.ID) ([]rtnl.Link, error) {
	links, err := pod.Links()
	if err != nil {
		return nil, ignoreMissing(err)
	}
	mine := belonging(links, id)
	return mine, deleteAll(pod, mine, id.Group(), grouped(links, id.Group()))
}

// unreached is the error for a pod's namespace that is there, may hold something of
// the attachment's, and cannot be reached.
func (s *Site) unreached(end *rtnl.Link) error {
	if s.noEntry == nil || end != nil && isTap(*end) { // mode host-tap has nothing in the pod
		return nil
	}
	return fmt.Errorf("only its network namespace leads to what may be left in the pod: %w", s.noEntry)
}

// belonging are the links that were made for the attachment.
func belonging(links []rtnl.Link, id port.ID) (mine []rtnl.Link) {
	for _, l := range links {
		if ours(l, id) {
			mine = append(mine, l)
		}
	}
	return mine
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
