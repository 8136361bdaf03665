package attach

import (
	"errors"
	"fmt"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Attached is one attachment that has a port in the namespace.
type Attached struct {
	port.Attachment
	Port rtnl.Link

	Seen *guard.Guard // that the port had at the last look; nil: none, or not looked for. Only Seek, Survey and Named look
}

// List finds the attachments by the records on their ports, and the ports that
// have lost theirs. Of an attachment whose port has gone with the pod's
// namespace, an ifb or a promoted tap can be left: its Port has no more than a name.
func (s *Site) List() (all []Attached, unrecorded []rtnl.Link, err error) {
	links, err := s.host.Links()
	all, unrecorded = list(links)
	return all, unrecorded, err
}

func list(links []rtnl.Link) (all []Attached, unrecorded []rtnl.Link) {
	there := map[string]bool{}
	for _, l := range links {
		a, err := port.ParseRecord(l.Alias)
		switch {
		case err == nil && l.Kind == a.PortKind() && ours(l, a.ID) && (l.Name == a.PortName() || renamed(l, a.ID)):
			all = append(all, Attached{Attachment: a, Port: l})
			there[a.PortName()] = true
		case port.Marked(l.Name, l.Group):
			unrecorded = append(unrecorded, l)
		}
	}
	for _, l := range links {
		a, err := port.ParseRecord(l.Alias)
		if err == nil && (l.Name == a.IFBName() || l.Name == a.PromotedName()) && ours(l, a.ID) && !there[a.PortName()] {
			there[a.PortName()] = true
			gone := rtnl.Link{Name: a.PortName(), NetNsID: rtnl.NoPeer}
			all = append(all, Attached{Attachment: a, Port: gone})
		}
	}
	return all, unrecorded
}

// RemoveOthers removes the attachments of a network that are not among the valid
// ones. One that cannot be removed does not keep the rest.
func (s *Site) RemoveOthers(network string, valid []port.ID) error {
	all, _, err := s.List()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, id := range valid {
		keep[id.PortName()] = true
	}
	for _, a := range all {
		if !a.InNetwork(network) || keep[a.PortName()] {
			continue
		}
		if e := s.Remove(a.ID); e != nil {
			err = errors.Join(err, fmt.Errorf("container %s, interface %q: %w", a.ContainerID, a.IfName, e))
		}
	}
	return errors.Join(err, s.unmasqueradeOthers(network, valid), s.UnguardGone())
}
