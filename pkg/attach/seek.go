package attach

import (
	"errors"
	"fmt"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// ErrNoPod says that a pod's network namespace cannot be entered: it is gone, or
// nothing leads to it.
var ErrNoPod = errors.New("the pod's network namespace cannot be entered")

// SeekAll finds the attachments as List does, and those as well whose port has
// been given another name, or another alias where the ifb still has the record.
func (s *Site) SeekAll() (all []Attached, unrecorded []rtnl.Link, err error) {
	links, err := s.host.Links()
	if err != nil {
		return nil, nil, err
	}
	listed, marked := list(links)
	there := map[string]bool{}
	add := func(a Attached) {
		if name := a.PortName(); !there[name] {
			all, there[name] = append(all, a), true
		}
	}
	whole := func(a Attached) bool { return a.Port.Index != 0 }
	for _, a := range listed {
		if whole(a) {
			add(a)
		}
	}
	for _, l := range links {
		if a, ok := recorded(l); ok {
			add(Attached{a, l})
		}
	}
	for _, l := range marked {
		if a, found := recordedOnIFB(links, l.Name); found {
			add(Attached{a, l})
		} else {
			unrecorded = append(unrecorded, l)
		}
	}
	for _, a := range listed {
		add(a)
	}
	return all, unrecorded, nil
}

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
	if a, ok := recorded(l); ok {
		return Attached{a, l}, a.Is(known.ID), nil
	}
	return Attached{known.Attachment, l}, there && l.Index == known.Port.Index && port.Marked(l.Name, l.Group), nil
}

// Named finds the port of that name by its record.
func (s *Site) Named(name string) (Attached, bool, error) {
	l, there, err := find(s.host, name)
	if err != nil || !there {
		return Attached{}, false, err
	}
	a, ok := recorded(l)
	return Attached{a, l}, ok && a.PortName() == name, nil
}

// recorded reads the attachment that l is the port of, whatever its name.
func recorded(l rtnl.Link) (port.Attachment, bool) {
	a, err := port.ParseRecord(l.Alias)
	kind := redirect.Kind
	if a.Mode == port.HostTap {
		kind = tap.Kind
	}
	return a, err == nil && l.Kind == kind && (l.Name == a.PortName() || l.Group == a.Group())
}

func recordedOnIFB(links []rtnl.Link, portName string) (port.Attachment, bool) {
	for _, l := range links {
		a, err := port.ParseRecord(l.Alias)
		if err == nil && l.Name == a.IFBName() && a.PortName() == portName && ours(l, a.ID) {
			return a, true
		}
	}
	return port.Attachment{}, false
}

// Pods are paths by which the network namespaces of pods can be entered, by the id
// that a port has for its peer's. It searches the processes of the node.
func (s *Site) Pods() map[int]string {
	paths := map[int]string{}
	for id, n := range s.namespaces() {
		paths[id] = n.path
	}
	return paths
}

// InPodOf calls f with a Site that has the pod's side of p as well, for as long
// as f takes: who keeps a namespace open keeps it from ending. path may be out of
// date. Errors: ErrNoPod, those of f.
func (s *Site) InPodOf(p Attached, path string, f func(*Site) error) error {
	if path == "" {
		return ErrNoPod
	}
	pod, err := rtnl.OpenAt(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoPod, err)
	}
	defer pod.Close()
	handle, err := s.host.Handle()
	if err != nil {
		return err
	}
	if id, err := handle.GetNetNsIdByFd(pod.FD()); err != nil || id != p.Port.NetNsID {
		return fmt.Errorf("%w: %s is another one", ErrNoPod, path)
	}
	return f(&Site{host: s.host, pod: pod})
}
