package attach

import (
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
)

// repairPod changes what it can: a missing or a stranger's device is left, and
// does not keep the other one from being repaired.
func (r *repairs) repairPod() error {
	inner, err := r.podDevice(r.want.Pod)
	if err != nil {
		return err
	}
	var tap placed
	if r.want.Tap != nil {
		if tap, err = r.podDevice(r.want.Tap); err != nil {
			return err
		}
	}
	r.gone = inner.index == 0 || r.want.Tap != nil && tap.index == 0
	if _, err := r.look(); err != nil {
		return err
	}
	var fixes, up []fix
	for _, d := range []struct {
		placed
		got *port.Device
	}{{inner, r.got.Pod}, {tap, r.got.Tap}} {
		if d.index == 0 || d.got == nil {
			continue
		}
		fixes = append(fixes, still(d.placed, *d.got)...)
		up = append(up, fix{!d.got.Up, d.raise})
	}
	if got := r.got.Redirect; got != nil && inner.index != 0 && tap.index != 0 {
		fixes = append(fixes, fix{!got.Works(), func() error { return redirect.Restore(r.pod, tap.index, inner.index) }})
	}
	return r.run(append(fixes, up...)...)
}

// podDevice finds a device of ours by its name, which it is given back where it has
// lost it. Without an index there is none, or a stranger's is in its place.
func (r *repairs) podDevice(want *port.Device) (placed, error) {
	d := placed{wanted: want, conn: r.pod}
	l, there, err := r.inPod(r.a.ID, want)
	if err != nil || !there {
		return d, err
	}
	if l.Name != want.Name {
		if err := r.rename(r.pod, l, want.Name); err != nil {
			return d, err
		}
	}
	if ours(l, r.a.ID) && l.Kind == want.Kind {
		d.index = l.Index
	}
	return d, nil
}

// inPod finds what is there under a device's name, else ours under another one.
func (s *Site) inPod(id port.ID, want *port.Device) (rtnl.Link, bool, error) {
	l, there, err := find(s.pod, want.Name)
	if err != nil || there {
		return l, there, err
	}
	links, err := s.pod.Links()
	for _, l := range belonging(links, id) {
		if l.Kind == want.Kind && l.Group == id.Group() {
			return l, true, err
		}
	}
	return rtnl.Link{}, false, err
}
