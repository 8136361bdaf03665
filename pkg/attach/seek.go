package attach

import (
	"slices"

	"github.com/tapbridge/tapbridge/pkg/port"
)

// Seek finds the port again that was seen as known: by its name, and where
// somebody has renamed it, by its index. Where it has lost its record, that of
// known stands; a new record is believed.
func (s *Site) Seek(known Attached) (Attached, bool, error) {
	l, there, err := find(s.host, known.PortName())
	if err != nil {
		return known, false, err
	}
	if !there {
		if l, err = s.host.LinkAt(known.Port.Index); err != nil {
			return known, false, ignoreMissing(err)
		}
	}
	seen := known.Seen
	if l.Index != known.Port.Index {
		seen = nil // another port's
	}
	again := Attached{known.Attachment, l, seen}
	a, ok := recorded(l)
	there = there && l.Index == known.Port.Index && port.Marked(l.Name, l.Group)
	if ok {
		again.Attachment, there = a, a.Is(known.ID)
	}
	if seen != nil && seen.Addresses != "" {
		return again, there, nil
	}
	one := []Attached{again} // the last look may have come before IPAM had told the addresses
	err = s.seeGuards(one)
	return one[0], there, err
}

// Named finds the port of that name by its record.
func (s *Site) Named(name string) (Attached, bool, error) {
	l, there, err := find(s.host, name)
	if err != nil || !there {
		return Attached{}, false, err
	}
	a, ok := recorded(l)
	if !ok || a.PortName() != name {
		return Attached{}, false, nil
	}
	one := []Attached{{Attachment: a, Port: l}}
	err = s.seeGuards(one)
	return one[0], true, err
}

// TapLeft reports whether the tap of p is in the pod, whatever has become of the port. It
// does without entering the pod.
func (s *Site) TapLeft(p Attached) (bool, error) {
	l, err := s.tapInPod(p)
	return err == nil && isTap(l) && ours(l, p.ID), ignoreMissing(err)
}

// seeGuards notes what guarded guests may speak as: it is nowhere else, and is to be
// given back when somebody has flushed the rules.
func (s *Site) seeGuards(all []Attached) error {
	if !slices.ContainsFunc(all, func(a Attached) bool { return a.Guarded }) {
		return nil
	}
	guards, err := s.observeGuards()
	if s.survey != nil {
		s.guards = guards
	}
	for i, a := range all {
		for _, name := range []string{a.PromotedName(), a.PortName()} { // the one or the other, or both
			if g, there := guards[name]; there && (all[i].Seen == nil || g.Addresses != "") {
				all[i].Seen = &g
			}
		}
	}
	return err
}
