package attach

import (
	"fmt"
	"path/filepath"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Inspected is one attachment and how it stands.
type Inspected struct {
	Attached
	Carrier     bool  // a VMM has the tap open; in mode veth: the pair is up
	Drift       error // what port.Diff says; nil: as it should be
	Unreachable bool  // the pod's namespace could not be found, only the bridge's side was compared
}

// Inspect observes every attachment of the namespace. It is for people: to reach
// the pods it searches the processes of the node for their namespaces.
func (s *Site) Inspect() ([]Inspected, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	pods := s.namespaces()
	result := make([]Inspected, len(all))
	for i, a := range all {
		if result[i], err = s.inspect(a, pods[a.Port.NetNsID]); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func (s *Site) inspect(a Attached, path string) (Inspected, error) {
	in := Inspected{Attached: a, Carrier: a.Port.Carrier()}
	want := a.Want()
	site := &Site{host: s.host}
	if want.Pod != nil {
		pod, err := rtnl.OpenAt(path)
		if err == nil {
			defer pod.Close()
		}
		if site.pod = pod; err != nil {
			in.Unreachable = true
			want.Pod, want.Tap, want.Redirect, want.Access = nil, nil, nil, nil
		}
	}
	got, err := site.Observe(want)
	if err != nil {
		return in, fmt.Errorf("port %q: %w", want.Name, err)
	}
	in.Drift = port.Diff(want, got)
	if want.Tap != nil {
		t, there, err := find(site.pod, want.Tap.Name)
		in.Carrier = err == nil && there && t.Carrier()
	}
	return in, nil
}

// namespaces finds a path for each network namespace that the host's namespace
// has an id for.
func (s *Site) namespaces() map[int]string {
	found := map[int]string{}
	seen := map[uint64]bool{}
	for _, pattern := range []string{"/run/netns/*", "/proc/[0-9]*/ns/net"} {
		paths, _ := filepath.Glob(pattern) // fails on a bad pattern only
		for _, p := range paths {
			var st unix.Stat_t
			if unix.Stat(p, &st) != nil || seen[st.Ino] {
				continue
			}
			seen[st.Ino] = true
			if id, err := s.nsID(p); err == nil && id >= 0 {
				found[id] = p
			}
		}
	}
	return found
}

// nsID is the id that the host's namespace has for the one at path; negative
// when it has none.
func (s *Site) nsID(path string) (int, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return -1, err
	}
	defer ns.Close()
	return s.host.GetNetNsIdByFd(int(ns))
}
