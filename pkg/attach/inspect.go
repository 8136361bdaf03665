package attach

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
)

// Inspected is one port and how it stands.
type Inspected struct {
	Attached            // without a record: the port alone
	Carrier    *bool    // a VMM has the tap open; in mode veth: the pair is up; nil: not known
	Wrong      []string // empty: as it should be
	PodUnknown bool     // the pod's namespace could not be entered, only the bridge's side was compared
	Deserted   bool     // the pod's namespace is kept by a mount alone: no process is in it
	State      State    // with the table Follow: whether it is waited for
	Unfollowed bool     // with the table Follow: there is no agent

	Promoted string // the name of the tap on the host, while that is the port; "": it is not

	Redirect *redirect.Pair // how frames get from the pod interface to the tap and back; nil: they do not, or not known
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
	unfollowed := false
	if slices.ContainsFunc(all, func(a Attached) bool { return a.Table == port.Follow }) {
		followed, err := AgentRuns()
		if err != nil && !errors.Is(err, os.ErrPermission) { // who is not root is not told
			return nil, err
		}
		unfollowed = !followed && err == nil
	}
	pods := s.namespaces()
	var result []Inspected
	for _, a := range all {
		pod := pods[a.Port.NetNsID]
		in, there, err := s.inspectCalmly(a, pod.path)
		if !there {
			continue
		}
		in.Unfollowed = a.Table == port.Follow && unfollowed
		in.Deserted = pod.path != "" && !pod.inhabited
		if err != nil { // one port must not hide the others
			in.Wrong = append(in.Wrong, err.Error())
		}
		result = append(result, in)
	}
	for _, l := range unrecorded {
		if l, err = s.host.LinkAt(l.Index); err != nil || !port.Marked(l.Name, l.Group) {
			continue // has gone meanwhile
		}
		if _, noRecord := port.ParseRecord(l.Alias); noRecord == nil {
			continue // of an ADD under way, which had not marked it yet
		}
		carrier := l.Carrier()
		result = append(result, Inspected{
			Attached: Attached{Port: l}, Carrier: &carrier,
			Wrong: []string{fmt.Sprintf("alias is %q, want the record of an attachment: it cannot be told whose port this is", l.Alias)},
		})
	}
	return result, nil
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

// inspectCalmly is false for a port that has gone since it was listed.
func (s *Site) inspectCalmly(a Attached, path string) (in Inspected, there bool, err error) {
	err = s.Calmly(a.Bridge, func() (err error) {
		if in, err = s.inspect(a, path); err == nil && len(in.Wrong) > 0 {
			return port.ErrDrift
		}
		return err
	})
	if errors.Is(err, port.ErrDrift) {
		err = nil // it is in words
	}
	if a.Port.Index == 0 || err == nil && len(in.Wrong) == 0 {
		return in, true, err
	}
	_, there, seekErr := s.Seek(a)
	return in, there || seekErr != nil, err
}

func (s *Site) inspect(a Attached, path string) (Inspected, error) {
	in := Inspected{Attached: a}
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
	var drift *port.Drift
	if errors.As(port.Diff(want, got), &drift) {
		in.Wrong = drift.Differences
	}
	trouble, err := s.bridgeTrouble(a)
	in.Wrong = append(in.Wrong, trouble...)
	in.Carrier = site.carrier(a, in)
	return in, err
}

// bridgeTrouble is what is wrong with the bridge, from the port's point of view.
func (s *Site) bridgeTrouble(a Attached) (wrong []string, err error) {
	br, err := bridge.Find(s.host, a.Bridge)
	if errors.Is(err, bridge.ErrNotFound) || errors.Is(err, bridge.ErrNotBridge) {
		return nil, nil // the port is on none, which has been said
	}
	if err == nil && !br.Up {
		wrong = append(wrong, fmt.Sprintf("bridge %s is down", br.Name))
	}
	if err == nil && br.MTU < a.MTU {
		wrong = append(wrong, fmt.Sprintf("bridge %s has MTU %d, less than the guest's %d", br.Name, br.MTU, a.MTU))
	}
	return wrong, err
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

// namespace is a pod's.
type namespace struct {
	path      string
	inhabited bool // a process is in it
}

// namespaces finds each network namespace that the host's namespace has an id for.
func (s *Site) namespaces() map[int]namespace {
	byInode := map[uint64]*namespace{}
	for _, path := range mounted() {
		if inode, err := inode(path); err == nil {
			byInode[inode] = &namespace{path: path}
		}
	}
	for _, path := range processes() {
		inode, err := inode(path)
		if err != nil {
			continue // the process has ended
		}
		if byInode[inode] == nil {
			byInode[inode] = &namespace{path: path}
		}
		byInode[inode].inhabited = true
	}
	found := map[int]namespace{}
	for _, n := range byInode {
		if id, err := s.nsID(n.path); err == nil && id >= 0 {
			found[id] = *n
		}
	}
	return found
}

// processes are the paths of the network namespaces of all processes. The folders that
// they are in may be entered, but not read by everybody, so they are not searched.
func processes() []string {
	found, _ := filepath.Glob("/proc/[0-9]*") // fails on a bad pattern only
	for i := range found {
		found[i] += "/ns/net"
	}
	return found
}

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Ino, err
}

// mounted are the paths at which runtimes keep network namespaces: bind mounts
// of "net:[inode]" (proc_pid_mountinfo(5)).
func mounted() (paths []string) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[3], "net:[") {
			paths = append(paths, f[4])
		}
	}
	return paths
}

// nsID is the id that the host's namespace has for the one at path; negative
// when it has none.
func (s *Site) nsID(path string) (int, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return -1, err
	}
	defer ns.Close()
	return s.host.NSID(rtnl.Namespace(ns))
}
