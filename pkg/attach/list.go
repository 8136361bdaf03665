package attach

import (
	"errors"
	"fmt"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Attached is one attachment that has a port in the namespace.
type Attached struct {
	port.Attachment
	Port rtnl.Link
}

// List finds the attachments by the records on their ports, and the ports that
// have lost theirs.
func (s *Site) List() (all []Attached, unrecorded []rtnl.Link, err error) {
	links, err := s.host.Links()
	for _, l := range links {
		a, err := port.ParseRecord(l.Alias)
		switch {
		case err == nil && l.Name == a.PortName() && ours(l, a.ID):
			all = append(all, Attached{a, l})
		case port.Marked(l.Name, l.Group):
			unrecorded = append(unrecorded, l)
		}
	}
	return all, unrecorded, err
}

// RemoveOthers removes the attachments of a network that are not among the valid
// ones. One that cannot be removed does not keep the rest.
func (s *Site) RemoveOthers(network string, valid []port.ID) error {
	all, _, err := s.List()
	if err != nil {
		return err
	}
	keep := map[port.ID]bool{}
	for _, id := range valid {
		keep[id.Recorded()] = true
	}
	for _, a := range all {
		if !a.InNetwork(network) || keep[a.ID] {
			continue
		}
		if e := s.Remove(a.ID); e != nil {
			err = errors.Join(err, fmt.Errorf("container %s, interface %q: %w", a.ContainerID, a.IfName, e))
		}
	}
	return err
}
