package attach

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// closePort comes before the port is up: until Admit tells its addresses, the
// guest cannot use any.
func (w *work) closePort() error {
	return exclusively(guardLock, func() error { return guard.Close(w.host, w.want.Name, w.a.Guest, "") })
}

// Admit lets the guest of a guarded port use the addresses of a guard.List, also where
// its tap is the port by now. A DEL that removes the port after the look forgets it under
// the lock. Error: ErrBusy.
func (s *Site) Admit(a port.Attachment, list string) error {
	return exclusively(guardLock, func() error {
		if _, there, err := s.portOf(a.ID); err != nil || !there {
			return cmp.Or(err, fmt.Errorf("port %q has gone while it was made: by a DEL, or with the pod", a.PortName()))
		}
		_, promoted, err := s.promoted(a)
		if err != nil {
			return err
		}
		if err := guard.Admit(s.host, a.PortName(), a.Guest, list); err != nil || !promoted {
			return err
		}
		return guard.Admit(s.host, a.PromotedName(), a.Guest, list)
	})
}

func (s *Site) observeGuards() (all guard.Observed, err error) {
	err = exclusively(guardLock, func() error { all, err = guard.Observe(s.host); return err })
	return all, err
}

// observeGuard looks at the guards of all ports of the node once.
func (s *Site) observeGuard(want port.Port, got *port.Port) (err error) {
	if want.Guard == nil {
		return nil
	}
	all := s.guards
	if all == nil {
		if all, err = s.observeGuards(); err != nil {
			return err
		}
	}
	if g, there := all[want.Name]; there {
		got.Guard = &g
	}
	return nil
}

// unguard forgets the attachment's port, and the tap that may have been in its place.
func (r *removal) unguard() error {
	if r.record != nil && !r.record.Guarded {
		return nil
	}
	return exclusively(guardLock, func() error {
		return errors.Join(r.removeGuard(r.id.PortName()), r.removeGuard(r.id.PromotedName()))
	})
}

// removeGuard forgets one device that has gone: one that could not be removed stays
// guarded.
func (s *Site) removeGuard(name string) error {
	if _, there, err := find(s.host, name); err != nil || there {
		return err
	}
	return guard.Remove(s.host, name)
}

// UnguardGone forgets the ports that have gone with the pod's namespace, and taps that
// are in the pod again. A port is there before it is guarded, which happens under the
// lock.
func (s *Site) UnguardGone() error { return exclusively(guardLock, s.removeGone) }

func (s *Site) removeGone() error {
	names, err := guard.Ports(s.host)
	if err != nil || len(names) == 0 {
		return err
	}
	links, err := s.host.Links()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, l := range links {
		there[l.Name] = true
	}
	var gone []string
	for _, n := range names {
		if there[n] {
			continue
		}
		_, there, err := find(s.host, n) // a list can be inconsistent
		if err != nil {
			return err
		}
		if !there {
			gone = append(gone, n)
		}
	}
	return guard.Remove(s.host, gone...)
}
