package agent

import (
	"errors"
	"time"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// afterwards is when the pod of a port that has gone is looked at: a DEL, or the end of
// its namespace, is over by then.
const afterwards = time.Second

// gone forgets a port, unless what it has left cannot be removed just now: nobody else
// knows of it any more.
func (k *keeper) gone(name string) {
	if errors.Is(k.removeOrphan(k.ports[name]), attach.ErrBusy) {
		k.add(part{name, attach.HostSide}, time.Now().Add(again))
		return
	}
	k.noteDeleted(k.ports[name])
	k.forget(name)
}

func (k *keeper) removeOrphan(p attach.Attached) error {
	if k.ObserveOnly || !leaves(p) {
		return nil
	}
	k.Health.turn()
	err := k.site.RemoveOrphan(p.Attachment)
	if err != nil && !errors.Is(err, attach.ErrBusy) {
		k.Log.Warn("what is left of a port that has gone stays", "port", p.PortName(), "error", err)
	}
	return err
}

// leaves reports whether anything can be left of a port that has gone: of most nothing
// can, and looking takes the bridge's lock.
func leaves(p attach.Attached) bool {
	wanders := p.Table == port.Static || p.Table == port.Roaming
	return wanders || p.Promote || p.Want().IFB != nil
}

// deletion is of a port that has gone; by a DEL, unless the guest's tap stays in the pod.
type deletion struct {
	attach.Attached
	at   time.Time
	said bool
}

// noteDeleted is for mode tap: in the others nothing of ours stays in the pod without the
// port, and nobody can tell what a DEL is.
func (k *keeper) noteDeleted(p attach.Attached) {
	if p.Mode == port.Tap {
		k.deletions[p.PortName()] = &deletion{Attached: p, at: time.Now()}
	}
}

// seeDeleted says once that a guest is cut off, and forgets it when its tap has gone.
func (k *keeper) seeDeleted(name string, now time.Time) {
	d := k.deletions[name]
	if d == nil {
		return
	}
	if due := d.at.Add(afterwards); now.Before(due) {
		k.add(part{name, attach.HostSide}, due)
		return
	}
	left, err := k.site.TapLeft(d.Attached)
	switch {
	case err != nil: // with the next comparison
	case !left:
		delete(k.deletions, name)
	case !d.said:
		d.said = true
		k.about(d.Attached, attach.HostSide).Warn("the port was deleted without DEL, and its guest is cut off: delete the pod", "tap", d.TapName())
	}
}
