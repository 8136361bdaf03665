package attach

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Inhabited are the network namespaces in which there is a thread of any process, by the
// id that a port has for its peer's. It is an error when one cannot be looked at: its
// namespace would seem deserted. It sees the processes of its own pid namespace, the
// first of which is the node's and in no pod; not everybody may look at that.
func (s *Site) Inhabited() (map[int]bool, error) {
	known, found := map[uint64]bool{}, map[int]bool{}
	for _, path := range tasks() {
		if strings.HasPrefix(path, "/proc/1/") {
			continue
		}
		inode, err := inode(path)
		if err == nil && !known[inode] {
			var id int
			id, err = s.nsID(path)
			known[inode], found[id] = err == nil, err == nil && id != rtnl.NoPeer
		}
		if err != nil && !ended(err) {
			return nil, fmt.Errorf("look for the network namespace of a process: %w", err)
		}
	}
	return found, nil
}

// ended reports whether err says that a process has (proc_pid_ns(5)).
func ended(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// Sweep is Remove for an attachment that nobody uses: there is no process in its pod,
// and no VMM has its tap open, wherever that is. Otherwise it removes nothing, and
// says so by false. inhabited is what Inhabited has just told.
func (s *Site) Sweep(p Attached, inhabited map[int]bool) (removed bool, err error) {
	p, there, err := s.Seek(p)
	if err != nil || !there {
		return there, err
	}
	if used, err := s.used(p, inhabited); err != nil || used {
		return false, err
	}
	return true, s.Remove(p.ID)
}

func (s *Site) used(p Attached, inhabited map[int]bool) (bool, error) {
	id := p.Port.NetNsID
	if id == rtnl.NoPeer && p.Mode != port.HostTap {
		return true, nil // the other end is in our own namespace
	}
	links, err := s.host.Links()
	if err != nil || inhabited[id] {
		return true, err
	}
	if id != rtnl.NoPeer {
		inPod, err := s.host.Behind(id).Links()
		if ignoreMissing(err) != nil {
			return true, err
		}
		links = append(links, inPod...)
	}
	return slices.ContainsFunc(belonging(links, p.ID), func(l rtnl.Link) bool { return isTap(l) && l.Plugged() }), nil
}
