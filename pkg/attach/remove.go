package attach

import (
	"errors"
	"fmt"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/dan"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Remove deletes every device and entry of an attachment that is still there,
// and its description for Kata, and nothing else. It needs nothing but the
// identity: what was built is read from the kernel. A part that cannot be removed
// does not keep the others. Errors: ErrBusy, when masquerade rules are being made
// for too long; those of dan.Folder.Remove.
func (s *Site) Remove(id port.ID) error {
	end, there, err := find(s.host, id.PortName())
	if err != nil {
		return err
	}
	return errors.Join(
		dan.Kata.Remove(id.ContainerID, id.PortName()),
		s.unmasquerade(id, end, there),
		s.remove(id))
}

// remove is Remove for the devices alone.
func (s *Site) remove(id port.ID) error {
	return errors.Join(s.removeIFB(id), s.removePort(id))
}

// removeIFB comes before the port, which keeps the attachment visible until the
// end.
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

func (s *Site) removePort(id port.ID) error {
	end, there, err := find(s.host, id.PortName())
	if err != nil {
		return err
	}
	if !there || !ours(end, id) {
		return s.removePodSide(id, nil)
	}
	podErr := s.removePodSide(id, &end)
	err = errors.Join(s.removeMovedEntries(end), podErr)
	if podErr != nil && s.pod == nil {
		return err // the port is the only way to the pod's side: keep it for the next try
	}
	// A veth end has gone with its peer by now, unless the peer was elsewhere.
	if e := ignoreMissing(s.host.Delete(end.Index)); e != nil {
		err = errors.Join(err, fmt.Errorf("delete port %q: %w", end.Name, e))
	}
	return err
}

// removeMovedEntries deletes the guest's entries where a frame on another port has
// taken them: the kernel keeps them static there, for good. On our own port they
// go with the port; an entry on the port of another guest of ours is that
// guest's.
func (s *Site) removeMovedEntries(end rtnl.Link) (err error) {
	a, noRecord := port.ParseRecord(end.Alias)
	if noRecord != nil || end.MasterIndex == 0 {
		return nil
	}
	for _, e := range a.Want().FDB {
		err = errors.Join(err, ignoreMissing(s.removeMoved(e, end)))
	}
	return err
}

func (s *Site) removeMoved(e fdb.Entry, end rtnl.Link) error {
	found, there, err := fdb.Lookup(s.host, end.MasterIndex, e.MAC, e.VLAN)
	if err != nil || !there || found.State != fdb.Static || found.Index == end.Index {
		return err
	}
	holder, err := s.host.LinkAt(found.Index)
	if err != nil {
		return err
	}
	if other, err := port.ParseRecord(holder.Alias); err == nil && other.Guest == e.MAC {
		return nil
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

// removePodSide deletes the attachment's devices in the pod. end is its port, if
// it is there.
func (s *Site) removePodSide(id port.ID, end *rtnl.Link) error {
	pod := s.podSide(end)
	if pod == nil {
		return nil
	}
	links, err := pod.Links()
	if err != nil {
		return ignoreMissing(err)
	}
	return deleteAll(pod, belonging(links, id), id.Group(), grouped(links, id.Group()))
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
// holds in all, otherwise one by one.
func deleteAll(in side, links []rtnl.Link, group uint32, inGroup int) (err error) {
	if len(links) > 1 && grouped(links, group) == len(links) && inGroup == len(links) {
		if err := ignoreMissing(in.DeleteGroup(group)); err != nil {
			return fmt.Errorf("delete the devices of group %d: %w", group, err)
		}
		return nil
	}
	for _, l := range links {
		if e := ignoreMissing(in.Delete(l.Index)); e != nil {
			err = errors.Join(err, fmt.Errorf("delete %q: %w", l.Name, e))
		}
	}
	return err
}

func ignoreMissing(err error) error {
	if rtnl.IsNotExist(err) {
		return nil
	}
	return err
}
