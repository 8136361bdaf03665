package agent

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// follower is what the keeper remembers of the guests that it follows, all of which
// can be had again from the kernel but the counts.
type follower struct {
	ears      map[string]*ear // of ports that wait and are locked, by name
	voices    chan voice
	strangers map[string]int // that have spoken since the port waits, by its name

	activations, withdrawals int
	activationTime           time.Duration // from the event to the entry, of all activations
	foreign                  int           // times that another address than the guest's has spoken on a port that waits
}

// voice is a MAC address that has spoken on a port.
type voice struct {
	port string
	mac  mac.Addr
	at   time.Time
}

func newFollower() follower {
	return follower{ears: map[string]*ear{}, voices: make(chan voice), strangers: map[string]int{}}
}

func (f *follower) close() {
	for name := range f.ears {
		f.unhear(name)
	}
}

// followed acts on what cannot wait until everything else is over: a guest that
// speaks, a VMM that goes.
func (k *keeper) followed(e rtnl.Event, at time.Time) {
	switch e.Kind {
	case unix.RTM_NEWNEIGH:
		if name := k.names[e.Index]; e.Learned && e.NetNsID == rtnl.NoPeer {
			k.heard(voice{name, e.MAC, at})
		}
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if !e.Carrier {
			k.lost(e, at)
		}
	}
}

// heard follows a guest; a stranger is counted, and no more: where the port is not
// locked the bridge learns it, as with any port that learns.
func (k *keeper) heard(v voice) {
	p, there := k.ports[v.port]
	switch {
	case !there || p.Table != port.Follow:
	case v.mac == p.Guest:
		k.follow(p, v.at, true)
	default:
		k.foreign++
		if k.strangers[v.port]++; k.strangers[v.port] > 1 {
			return // once is enough
		}
		k.Log.Warn("another address than the guest's has spoken on a port that waits", append(about(part{v.port, attach.HostSide}, p), "mac", v.mac.String())...)
	}
}

// lost looks whether it was a VMM whose tap has lost its carrier.
func (k *keeper) lost(e rtnl.Event, at time.Time) {
	if e.NetNsID == rtnl.NoPeer {
		if p, there := k.ports[k.names[e.Index]]; there && p.Mode == port.HostTap {
			k.follow(p, at, false)
		}
		return
	}
	for name := range k.topics[podOf(e.NetNsID)] {
		if p := k.ports[name]; p.Mode == port.Tap && p.TapName() == e.Name {
			k.follow(p, at, false)
		}
	}
}

// follow takes the port to the state that its guest is in, if it is in the other
// one. spoke says that the guest has; else the kernel may have learned it.
func (k *keeper) follow(p attach.Attached, at time.Time, spoke bool) {
	if p.Table != port.Follow || k.ObserveOnly {
		return
	}
	w := part{p.PortName(), attach.HostSide}
	st, err := k.site.Stance(p)
	switch {
	case err != nil:
	case st.Running && !st.Carrier:
		err = k.withdraw(w, p, &st)
	case !st.Running && st.Carrier && (spoke || st.Heard):
		err = k.activate(w, p, &st, at)
	}
	if errors.Is(err, attach.ErrBusy) {
		k.add(w, time.Now().Add(again))
	} else if err != nil {
		k.report(w, p, k.stateOf(w), nil, err)
	}
	k.listen(p, p.Locked && !st.Running)
}

func (k *keeper) activate(w part, p attach.Attached, st *attach.Stance, at time.Time) error {
	acted, err := k.site.Activate(p)
	if !acted || err != nil {
		return err
	}
	took := time.Since(at)
	st.Running = true
	delete(k.strangers, w.port)
	k.activations++
	k.activationTime += took
	k.Log.Info("the guest has spoken: it has its entry", append(about(w, p), "took", took)...)
	return nil
}

func (k *keeper) withdraw(w part, p attach.Attached, st *attach.Stance) error {
	acted, err := k.site.Withdraw(p)
	if !acted || err != nil {
		return err
	}
	st.Running = false
	k.withdrawals++
	k.Log.Info("the VMM has gone: the guest's entry is taken out", about(w, p)...)
	return nil
}

// listen opens and closes the ear at the port.
func (k *keeper) listen(p attach.Attached, wanted bool) {
	name := p.PortName()
	if e := k.ears[name]; e != nil && (!wanted || e.index != p.Port.Index || e.guest != p.Guest) {
		k.unhear(name)
	}
	if !wanted || k.ears[name] != nil {
		return
	}
	e, err := openEar(p.Port.Index, p.Guest)
	if rtnl.IsNotExist(err) {
		return // it has gone, which is seen
	}
	if err != nil {
		k.Log.Error("the guest cannot be heard", append(about(part{name, attach.HostSide}, p), "error", err)...)
		return
	}
	k.ears[name] = e
	go e.listen(name, k.voices)
}

func (f *follower) unhear(name string) {
	if e := f.ears[name]; e != nil {
		e.close()
		delete(f.ears, name)
	}
}
