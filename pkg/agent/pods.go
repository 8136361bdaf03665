package agent

import (
	"errors"

	"github.com/tapbridge/tapbridge/pkg/attach"
)

// podPaths remembers how to enter the pods: not an open descriptor, which would
// keep a pod's devices alive after it, but where to find one.
type podPaths struct {
	site   *attach.Site
	paths  map[int]string
	missed map[int]bool // not found by the last search; nil: none has been made
}

// mayRefresh allows one more search for those that were not found.
func (p *podPaths) mayRefresh() { p.missed = nil }

// in calls f inside the pod of a. It searches the node's processes only where the
// path it knows does not lead there any more.
func (p *podPaths) in(a attach.Attached, f func(*attach.Site) error) error {
	id := a.Port.NetNsID
	err := p.site.InPodOf(a, p.paths[id], f)
	if !errors.Is(err, attach.ErrNoPod) || p.missed[id] {
		return err
	}
	if p.missed == nil {
		p.missed = map[int]bool{}
	}
	p.paths = p.site.Pods()
	if err = p.site.InPodOf(a, p.paths[id], f); errors.Is(err, attach.ErrNoPod) {
		p.missed[id] = true
	}
	return err
}
