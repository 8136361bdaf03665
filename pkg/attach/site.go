// Package attach makes, observes and removes whole attachments: it orders the
// packages that know one kernel object each, and keeps the list of what must be
// undone. It knows nothing of CNI, so that a node agent can call it as well.
package attach

import (
	"errors"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

var (
	// ErrExists says that a device of a name that the attachment needs is there
	// already.
	ErrExists = errors.New("exists already")
	// ErrTaken says that a MAC address is in use by somebody else on the bridge.
	ErrTaken = errors.New("MAC address is taken")
	// ErrBusy says that a lock could not be had in time, or that somebody else was at
	// the same device.
	ErrBusy = errors.New("busy")
	// ErrStale says that the bridge is not as it was when the attachment was planned.
	ErrStale = errors.New("has been changed since it was looked at")
	// ErrDefect says that the program itself is wrong.
	ErrDefect = errors.New("defect in tapbridge, please report it")
)

// Site is where attachments are made: the bridge's network namespace, which is
// that of the process, and the pod's.
type Site struct {
	host *rtnl.Conn
	pod  *rtnl.Conn // nil: gone, or not known

	noEntry error           // why pod is nil though the namespace is there
	created *bridge.Bridge  // by Apply; nil: the bridge was there
	guards  guard.Observed  // nil: to be read when needed
	survey  *survey         // nil: each link is asked for
	hurried map[string]bool // bridges whose locks Calmly has waited for in vain
}

// Open connects to the bridge's side alone.
func Open() (*Site, error) {
	host, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	return &Site{host: host}, nil
}

// OpenPod connects to the bridge's side and to the pod's network namespace at
// path.
func OpenPod(path string) (*Site, error) {
	s, err := Open()
	if err != nil {
		return nil, err
	}
	if s.pod, err = rtnl.OpenAt(path); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// OpenForRemoval does without the pod's network namespace when it is gone, or, as far
// as what is in it can be removed through the port, when it cannot be entered.
func OpenForRemoval(path string) (*Site, error) {
	s, err := OpenPod(path)
	if err == nil {
		return s, nil
	}
	noEntry := err
	if s, err = Open(); err == nil && !rtnl.IsNoNamespace(path, noEntry) {
		s.noEntry = noEntry
	}
	return s, err
}

// OpenScratch is for trying things: both sides are network namespaces that are
// empty, and gone after Close.
func OpenScratch() (*Site, error) {
	host, err := rtnl.OpenScratch()
	if err != nil {
		return nil, err
	}
	pod, err := rtnl.OpenScratch()
	if err != nil {
		host.Close()
		return nil, err
	}
	return &Site{host: host, pod: pod}, nil
}

// Close gives the connections back.
func (s *Site) Close() {
	s.host.Close()
	if s.pod != nil {
		s.pod.Close()
	}
}

// OneSided reports whether the pod's network namespace is the bridge's.
func (s *Site) OneSided() (bool, error) {
	own, err := rtnl.Current()
	if err != nil {
		return false, err
	}
	defer own.Close()
	host, err := own.Inode()
	if err != nil {
		return false, err
	}
	pod, err := rtnl.Namespace(s.pod.FD()).Inode()
	return pod == host, err
}

// Bridge reads the bridge of that name, and waits for an Apply that is just making
// it. Errors: those of bridge.Find, and ErrBusy.
func (s *Site) Bridge(name string) (bridge.Bridge, error) {
	br, err := bridge.Find(s.host, name)
	if err != nil || !br.BeingMade() {
		return br, err
	}
	unlock, err := lock(name)
	if err != nil {
		return br, err
	}
	defer unlock()
	return bridge.Find(s.host, name)
}

// Host is the connection to the bridge's side.
func (s *Site) Host() *rtnl.Conn { return s.host }

// HostAccess is who may open a tap in the pod, given by ids of the user
// namespace that owns the pod's network namespace. Errors: those of
// tap.Access.In.
func (s *Site) HostAccess(a tap.Access) (tap.Access, error) { return a.In(s.pod) }

// Recorded reads what the attachment's port says was decided; false when there
// is no port, or no record on it.
func (s *Site) Recorded(id port.ID) (port.Attachment, bool, error) {
	l, there, err := find(s.host, id.PortName())
	if err != nil || !there {
		return port.Attachment{}, false, err
	}
	a, err := port.ParseRecord(l.Alias)
	return a, err == nil, nil
}
