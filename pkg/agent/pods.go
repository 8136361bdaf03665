package agent

import (
	"errors"
	"time"

	"github.com/tapbridge/tapbridge/pkg/attach"
)

// podPaths remembers how to enter the pods: not an open descriptor, which would
// keep a pod's devices alive after it, but where to find one.
type podPaths struct {
	site   *attach.Site
	ports  map[string]attach.Attached // those of the keeper
	paths  map[int]string
	missed map[int]bool // not found by the last search; nil: none has been made
}

// mayRefresh allows one more search for those that were not found.
func (p *podPaths) mayRefresh() { p.missed = nil }

// in calls f inside the pod of a. It searches the node's processes only where the
// path it knows does not lead there any more, and once for all ports.
func (p *podPaths) in(a attach.Attached, f func(*attach.Site) error) error {
	id := a.Port.NetNsID
	err := p.site.InPodOf(a, p.paths[id], f)
	if !errors.Is(err, attach.ErrNoPod) || p.missed[id] {
		return err
	}
	if p.missed == nil {
		p.missed = map[int]bool{}
	}
	p.search()
	if err = p.site.InPodOf(a, p.paths[id], f); errors.Is(err, attach.ErrNoPod) {
		p.missed[id] = true
	}
	return err
}

// search also notes which pods there is no way into: each of them would be a reason to
// search again.
func (p *podPaths) search() {
	p.paths = p.site.Pods()
	for _, a := range p.ports {
		if id := a.Port.NetNsID; p.paths[id] == "" {
			p.missed[id] = true
		}
	}
}

// entry is since when a pod cannot be entered; zero: it can.
type entry struct{ refused time.Time }

// mayEnd reports whether err is for want of a way into a pod, and has not lasted: nothing
// leads into one that is about to end.
func (e *entry) mayEnd(err error) bool {
	if !errors.Is(err, attach.ErrNoPod) {
		e.refused = time.Time{}
		return false
	}
	if e.refused.IsZero() {
		e.refused = time.Now()
	}
	return time.Since(e.refused) < afterwards
}
