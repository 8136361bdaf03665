package agent

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// known are the ports as last seen, and what events can speak of them by.
type known struct {
	ports  map[string]attach.Attached // by the port's name
	topics map[any]map[string]bool    // those of ports, by topic
	names  map[int]string             // of devices that are a topic, by index: not every event has the name
}

// podOf is a topic: the namespace with that id. The others are the names of devices
// in the bridge's namespace, as strings, and the guests' addresses, as mac.Addr.
type podOf int

func newKnown() known {
	return known{map[string]attach.Attached{}, map[any]map[string]bool{}, map[int]string{}}
}

func topicsOf(p attach.Attached) []any {
	return []any{p.PortName(), p.IFBName(), p.PromotedName(), p.Bridge, p.Guest, podOf(p.Port.NetNsID)}
}

// remember reports whether p is new, or has another record than before. What a guarded
// guest was seen with is kept where p has none of it: somebody may have flushed it.
func (k known) remember(p attach.Attached) (news bool) {
	name := p.PortName()
	old, seen := k.ports[name]
	if old.Port.Index == p.Port.Index && old.Seen != nil && (p.Seen == nil || p.Seen.Addresses == "") {
		p.Seen = old.Seen
	}
	news = !seen || old.Attachment != p.Attachment || old.Port.NetNsID != p.Port.NetNsID
	if news {
		k.forget(name)
		for _, t := range topicsOf(p) {
			if k.topics[t] == nil {
				k.topics[t] = map[string]bool{}
			}
			k.topics[t][name] = true
		}
	}
	k.ports[name], k.names[p.Port.Index] = p, name
	return news
}

func (k known) forget(name string) {
	p, seen := k.ports[name]
	if !seen {
		return
	}
	for _, t := range topicsOf(p) {
		if delete(k.topics[t], name); len(k.topics[t]) == 0 {
			delete(k.topics, t)
		}
	}
	delete(k.ports, name)
	maps.DeleteFunc(k.names, func(_ int, topic string) bool { return k.topics[topic] == nil })
}

// touched are the parts that a change may have spoilt. What happens in a pod's
// namespace can be any of its ports: a pod has few.
func (k known) touched(e rtnl.Event) (parts []part) {
	if e.NetNsID != rtnl.NoPeer {
		return k.of(podOf(e.NetNsID), attach.PodSide)
	}
	switch e.Kind {
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return k.of(e.MAC, attach.HostSide)
	}
	parts = k.of(k.names[e.Index], attach.HostSide)
	if e.Name == "" || e.Name == k.names[e.Index] {
		return parts
	}
	if k.topics[e.Name] != nil {
		k.names[e.Index] = e.Name
		return append(parts, k.of(e.Name, attach.HostSide)...)
	}
	if port.Marked(e.Name, e.Group) {
		parts = append(parts, part{e.Name, attach.HostSide}, part{e.Name, attach.PodSide})
	}
	return parts
}

func (k known) of(topic any, side attach.Side) (parts []part) {
	for _, name := range slices.Sorted(maps.Keys(k.topics[topic])) {
		parts = append(parts, part{name, side})
	}
	return parts
}
