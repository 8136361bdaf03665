package attach

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// ErrNoPod says that a pod's network namespace cannot be entered: it is gone, or
// nothing leads to it.
var ErrNoPod = errors.New("the pod's network namespace cannot be entered")

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
	if id, err := s.host.NSID(rtnl.Namespace(pod.FD())); err != nil || id != p.Port.NetNsID {
		return fmt.Errorf("%w: %s is another one", ErrNoPod, path)
	}
	return f(&Site{host: s.host, pod: pod})
}

// namespace is a pod's.
type namespace struct {
	path      string
	inhabited bool // a thread is in it
}

// namespaces finds each network namespace that the host's namespace has an id for.
func (s *Site) namespaces() map[int]namespace {
	byInode := map[uint64]*namespace{}
	for _, path := range mounted() {
		if inode, err := inode(path); err == nil {
			byInode[inode] = &namespace{path: path}
		}
	}
	for _, path := range tasks() {
		inode, err := inode(path)
		if err != nil {
			continue // it has ended
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

// tasks are the paths of the network namespaces of all threads: Kata's runtime-rs has its
// VMM in threads of a process that is elsewhere (dragonball, vmm_master). The folders that
// they are in may be entered, but not read by everybody, so they are not searched.
func tasks() []string {
	found, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*") // fails on a bad pattern only
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

// PodEnds reports whether the pod's network namespace is ending, so that p will go with it:
// the kernel answers for it no more, and takes its time.
func (s *Site) PodEnds(p Attached) bool {
	if p.Port.NetNsID < 0 {
		return false
	}
	_, err := s.host.Behind(p.Port.NetNsID).Links()
	return rtnl.IsNotExist(err)
}
