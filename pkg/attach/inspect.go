package attach

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
)

// Inspected is one port and how it stands.
type Inspected struct {
	Attached                    // without a record: the port alone
	Carrier    *bool            // a VMM has the tap open; in mode veth: the pair is up; nil: not known
	Drift      []string         // how it differs from its record, as far as an agent repairs that
	Lasting    []string         // and as far as none does
	OfBridge   port.Differences // what is wrong with its bridge: see Site.OfBridge
	InPod      []string         // in mode veth: how the pod's side differs, which KubeVirt's bindings and Kata may change: it is not wrong
	Failed     error            // what keeps these from being complete
	Unjoinable bool             // its bridge is missing, something else, or not VLAN-aware: nobody repairs what is wrong with the membership
	Agent      bool             // one is there that repairs ports; not known to those who are not root
	PodUnknown bool             // the pod's namespace could not be entered, only the bridge's side was compared
	Deserted   bool             // the pod's namespace is kept by a mount alone: no process is in it
	State      State            // with the table Follow: whether it is waited for
	Unfollowed bool             // with the table Follow: there is no agent

	Promoted string // the name of the tap on the host, while that is the port; "": it is not

	Redirect *redirect.Pair // how frames get from the pod interface to the tap and back; nil: they do not, or not known
}

// Wrong is all that is wrong with the port; empty: it is as it should be.
func (in Inspected) Wrong() []string {
	wrong := slices.Concat(in.Drift, in.Lasting, in.OfBridge.Texts())
	if in.Failed != nil {
		wrong = append(wrong, in.Failed.Error())
	}
	return wrong
}

// Mute reports whether the guest can say nothing: its port is locked until somebody
// admits it, and nobody is there to.
func (in Inspected) Mute() bool { return in.Unfollowed && in.Locked && in.State == Awaited }

// Inspect observes every port of ours in the namespace. It is for people: to
// reach the pods it searches the processes of the node for their namespaces.
func (s *Site) Inspect() ([]Inspected, error) {
	all, unrecorded, err := s.List()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(a Attached) bool { return a.Guarded }) {
		if s.guards, err = s.observeGuards(); err != nil {
			return nil, err
		}
	}
	agent, err := AgentRuns()
	unknown := err != nil
	if unknown && !errors.Is(err, os.ErrPermission) && slices.ContainsFunc(all, func(a Attached) bool { return a.Table == port.Follow }) {
		return nil, err // but who is not root is not told
	}
	pods := s.namespaces()
	var result []Inspected
	for _, a := range all {
		pod := pods[a.Port.NetNsID]
		in, there := s.inspectCalmly(Inspected{Attached: a, Agent: agent}, pod.path)
		if !there {
			continue
		}
		in.Unfollowed = a.Table == port.Follow && !agent && !unknown
		in.Deserted = pod.path != "" && !pod.inhabited
		result = append(result, in)
	}
	for _, l := range unrecorded {
		if in, still := s.inspectUnrecorded(l, agent); still {
			result = append(result, in)
		}
	}
	return result, nil
}

// inspectUnrecorded looks again at a port that was listed without a record, and is false
// where it is none any more.
func (s *Site) inspectUnrecorded(l rtnl.Link, agent bool) (in Inspected, still bool) {
	l, err := s.host.LinkAt(l.Index)
	if err != nil || !port.Marked(l.Name, l.Group) {
		return in, false // has gone meanwhile
	}
	if _, noRecord := port.ParseRecord(l.Alias); noRecord == nil {
		return in, false // of an ADD under way, which had not marked it yet
	}
	in = Inspected{Attached: Attached{Port: l}, Agent: agent}
	lost := []string{fmt.Sprintf("alias is %q, want the record of an attachment: it cannot be told whose port this is", l.Alias)}
	if agent { // which may have seen the record
		in.Drift = lost
	} else {
		in.Lasting = lost
	}
	if isTap(l) { // the other end of a veth pair tells nothing of a VMM
		carrier := l.Carrier()
		in.Carrier = &carrier
	}
	return in, true
}

// Uplinks are those of the bridge of that name, and what keeps them promiscuous;
// none when there is no such bridge.
func (s *Site) Uplinks(name string) ([]bridge.Uplink, error) {
	br, there, err := find(s.host, name)
	if err != nil || !there || br.Kind != bridge.Kind {
		return nil, err
	}
	ports, err := s.host.LinksOf(br.Index)
	return bridge.Uplinks(br, ports), ignoreMissing(err)
}

// inspectCalmly is false for a port that has gone since it was listed. One that cannot be
// looked at must not hide the others.
func (s *Site) inspectCalmly(known Inspected, path string) (in Inspected, there bool) {
	a := known.Attached
	wrong := s.Calmly(a.Bridge, func() error {
		if in, in.Failed = s.inspect(known, path); len(in.Wrong()) > 0 {
			return port.ErrDrift
		}
		return nil
	})
	if a.Port.Index == 0 || wrong == nil {
		return in, true
	}
	_, there, err := s.Seek(a)
	return in, there || err != nil
}

func (s *Site) inspect(in Inspected, path string) (Inspected, error) {
	a := in.Attached
	want, err := s.Want(a.Attachment)
	if err != nil {
		return in, err
	}
	if want.Idle != nil {
		in.Promoted = want.Name
	}
	site := &Site{host: s.host, guards: s.guards}
	if want.Pod != nil {
		if site.pod, err = rtnl.OpenAt(path); err == nil {
			defer site.pod.Close()
		} else {
			in.PodUnknown = true
			want = wanted(want, HostSide)
		}
	}
	got, err := site.Observe(want)
	if err != nil {
		return in, err
	}
	if want.DAN != nil && got.DAN != nil { // only the runtime's result tells them
		want.DAN.Addresses, want.DAN.Routes = got.DAN.Addresses, got.DAN.Routes
	}
	if want.Guard != nil && got.Guard != nil {
		want.Guard.Addresses = cmp.Or(got.Guard.Addresses, "those of the guest")
	}
	in.Redirect = got.Redirect
	if a.Table == port.Follow {
		in.State = Awaited
		if got.Entered() {
			in.State = Running
		}
	}
	in.Carrier = site.carrier(a, in)
	if a.Mode == port.Veth {
		in.InPod = differencesOf(port.Diff(wanted(want, PodSide), wanted(got, PodSide))).Texts()
		want, got = wanted(want, HostSide), wanted(got, HostSide)
	}
	if in.Drift = a.named(differencesOf(port.Diff(want, got))).Texts(); len(in.Drift) > 0 {
		lasting, err := site.lasting(in, want, got)
		if err != nil {
			return in, err
		}
		lasts := func(d string) bool { return slices.Contains(lasting, d) }
		in.Lasting = slices.DeleteFunc(slices.Clone(in.Drift), func(d string) bool { return !lasts(d) })
		in.Drift = slices.DeleteFunc(in.Drift, lasts)
	}
	br, there, err := s.bridgeOf(a.Attachment)
	in.Unjoinable = !there || a.VLANs != "" && !br.VLANAware
	if there {
		in.OfBridge = wrongOf(br, a.Attachment)
	}
	return in, err
}

// OfBridge lists what keeps the bridge from passing the frames of a's guest, which is its
// administrator's to put right. Nothing where there is no such bridge: Compare says that.
func (s *Site) OfBridge(a port.Attachment) (port.Differences, error) {
	br, there, err := s.bridgeOf(a)
	if err != nil || !there {
		return nil, err
	}
	return wrongOf(br, a), nil
}

// BridgeMTU is the Field of a difference that OfBridge finds; otherwise the bridge is down.
const BridgeMTU = "bridge MTU"

func wrongOf(br bridge.Bridge, a port.Attachment) (d port.Differences) {
	if !br.Up {
		d = append(d, port.Difference{Text: fmt.Sprintf("bridge %s is down", br.Name), Field: "bridge link"})
	}
	if br.MTU < a.MTU {
		d = append(d, port.Difference{Text: fmt.Sprintf("bridge %s has MTU %d, less than the guest's %d", br.Name, br.MTU, a.MTU), Field: BridgeMTU})
	}
	return d
}

func (s *Site) bridgeOf(a port.Attachment) (bridge.Bridge, bool, error) {
	l, there, err := s.find(a.Bridge)
	return bridge.Of(l), there && l.Kind == bridge.Kind, err
}

// lasting are the differences that are left after a Repair of both sides: it makes no
// device but an ifb, does not change who may open a tap, and leaves Kata's file and the MTU
// of the pod interface to others. The addresses of a guest that is guarded no more are known
// to an agent at most that has seen them before.
func (s *Site) lasting(in Inspected, want, got port.Port) ([]string, error) {
	after := want.Like(got)
	after.DAN = got.DAN
	if _, there, err := s.portOf(in.ID); err != nil {
		return nil, err
	} else if !there { // or a stranger's is in its place
		after.End, after.Bridge, after.FDB = got.End, got.Bridge, got.FDB
	}
	if got.Tap != nil || want.Tap == nil {
		after.Access = got.Access
	}
	if want.Guard != nil && (got.Guard == nil || got.Guard.Addresses == "") && !in.Agent {
		after.Guard = got.Guard
	}
	for _, d := range []struct {
		after **port.Device
		got   *port.Device
	}{{&after.Pod, got.Pod}, {&after.Tap, got.Tap}} {
		if *d.after == nil {
			continue
		}
		l, there, err := s.inPod(in.ID, *d.after)
		if err != nil {
			return nil, err
		}
		if !there || !ours(l, in.ID) {
			*d.after = d.got
		}
	}
	if after.Pod != nil && got.Pod != nil {
		pod := *after.Pod
		pod.MTU, after.Pod = got.Pod.MTU, &pod
	}
	return differencesOf(port.Diff(want, after)).Texts(), nil
}

// carrier tells whether a VMM is there. A pair of veth ends has carrier also
// without one, so the tap in the pod must be asked.
func (s *Site) carrier(a Attached, in Inspected) *bool {
	l := a.Port
	if a.Mode == port.Tap {
		c, name := s.pod, a.TapName()
		if in.Promoted != "" {
			c, name = s.host, in.Promoted
		} else if in.PodUnknown {
			return nil
		}
		t, there, err := find(c, name)
		if err != nil || !there {
			return nil
		}
		l = t
	}
	carrier := l.Carrier()
	return &carrier
}
