package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	states    map[string]attach.State

	presence *attach.Presence // nil: nobody may rely on us

	activations, withdrawals int
	foreign                  int // times that another address than the guest's has spoken on a port that waits
}

// voice is a MAC address that has spoken on a port.
type voice struct {
	port string
	mac  mac.Addr
	at   time.Time
}

// promise lets the plugin rely on us, which needs CAP_NET_RAW for guests on locked
// ports.
func promise() (*attach.Presence, error) {
	const loopback = 1 // any device will do
	e, err := openEar(loopback, mac.Addr{})
	if err != nil {
		return nil, fmt.Errorf("hear guests: %w", err)
	}
	e.close()
	return attach.AnnounceAgent()
}

func newFollower() follower {
	return follower{ears: map[string]*ear{}, voices: make(chan voice), strangers: map[string]int{}, states: map[string]attach.State{}}
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
		k.admit(p, v.at)
	default:
		k.foreign++
		k.Metrics.foreign.Inc()
		if k.strangers[v.port]++; k.strangers[v.port] > 1 {
			return // once is enough
		}
		k.tellTurn(p, slog.LevelWarn, "another address than the guest's has spoken on a port that waits", "mac", v.mac.String())
	}
}

// lost looks whether it was a VMM whose tap has lost its carrier.
func (k *keeper) lost(e rtnl.Event, at time.Time) {
	if e.NetNsID == rtnl.NoPeer {
		if p, there := k.ports[k.names[e.Index]]; there && p.Table == port.Follow && p.Mode == port.HostTap {
			k.lookAfter(p, at)
		}
		return
	}
	for name := range k.topics[podOf(e.NetNsID)] {
		if p := k.ports[name]; p.Table == port.Follow && p.Mode == port.Tap && p.TapName() == e.Name {
			k.lookAfter(p, at)
		}
	}
}

// admit activates the port of a guest that has spoken, without another look.
func (k *keeper) admit(p attach.Attached, at time.Time) {
	if k.ObserveOnly {
		return
	}
	running, err := k.activate(p, at)
	if k.tell(p, err); running {
		k.unhear(p.PortName())
	}
}

// lookAfter is follow for a port that was seen a while ago.
func (k *keeper) lookAfter(p attach.Attached, at time.Time) {
	if p, there, err := k.site.Seek(p); err == nil && there { // else it is compared, and forgotten
		k.follow(p, at)
	}
}

// follow takes the port, as it has just been seen, to the state that its guest is in,
// if it is in the other one.
func (k *keeper) follow(p attach.Attached, at time.Time) {
	if p.Table != port.Follow || k.ObserveOnly {
		return
	}
	st, err := k.site.Stance(p)
	running := st.Running
	switch {
	case err != nil:
	case st.Running && !st.Carrier:
		running, err = k.withdraw(p)
	case !st.Running && st.Carrier && st.Heard:
		running, err = k.activate(p, at)
	}
	k.tell(p, err)
	k.states[p.PortName()] = attach.Awaited
	if running {
		k.states[p.PortName()] = attach.Running
	}
	k.listen(p, p.Locked && !running)
}

func (k *keeper) tell(p attach.Attached, err error) {
	if errors.Is(err, attach.ErrBusy) {
		k.add(part{p.PortName(), attach.HostSide}, time.Now().Add(again))
	} else if err != nil && !rtnl.IsNotExist(err) { // what has gone is seen to have gone
		k.report(p, attach.HostSide, nil, err)
	}
}

func (k *keeper) activate(p attach.Attached, at time.Time) (running bool, err error) {
	acted, err := k.site.Activate(p)
	if !acted || err != nil {
		return false, err
	}
	took := time.Since(at)
	k.activations++
	k.Metrics.activation.Observe(took.Seconds())
	k.states[p.PortName()] = attach.Running
	delete(k.strangers, p.PortName())
	k.tellTurn(p, slog.LevelInfo, "the guest has spoken: it has its entry", "took", took)
	return true, nil
}

func (k *keeper) withdraw(p attach.Attached) (running bool, err error) {
	acted, err := k.site.Withdraw(p)
	if !acted || err != nil {
		return true, err
	}
	k.withdrew(p)
	return false, nil
}

func (k *keeper) withdrew(p attach.Attached) {
	k.withdrawals++
	k.Metrics.withdrawals.Inc()
	k.tellTurn(p, slog.LevelInfo, "the VMM has gone: the guest's entry is taken out")
}

// tellTurn is not for every turn of a VMM that comes and goes as fast as it likes; how many
// there were is counted. Each message has its own pace: one does not hide another.
func (k *keeper) tellTurn(p attach.Attached, level slog.Level, message string, more ...any) {
	now := time.Now()
	s := k.stateOf(part{p.PortName(), attach.HostSide})
	if s.turns[message] == nil {
		s.turns[message] = &pace{}
	}
	turns := s.turns[message]
	if now.Before(turns.until) {
		return
	}
	if pause := turns.disturbed([]string{reports}, now); pause > 0 {
		more = append(more, "quiet", pause)
	}
	k.about(p, attach.HostSide).Log(context.Background(), level, message, more...)
}

// publishFollowed tells how many guests are waited for, and how many run.
func (k *keeper) publishFollowed() {
	n := map[attach.State]int{}
	for _, state := range k.states {
		n[state]++
	}
	for _, state := range []attach.State{attach.Awaited, attach.Running} {
		k.Metrics.followed.WithLabelValues(string(state)).Set(float64(n[state]))
	}
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
		k.about(p, attach.HostSide).Error("the guest cannot be heard", "error", err)
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
