package nstest

import (
	"slices"
	"strings"
	"time"
)

// settle returns the links as soon as they are at rest, or as they are after
// 3 s: some never are, such as a port that an admin disabled. It looks twice,
// because a long dump is no snapshot: the kernel lets go of its lock between
// the parts of it.
func (n *NS) settle(atRest func([]object) bool) []object {
	n.t.Helper()
	const nap, patience = 10 * time.Millisecond, 300
	var last string
	for range patience {
		links := n.links()
		now := snapshot(links)
		if now == last && atRest(links) {
			return links
		}
		last = now
		time.Sleep(nap)
	}
	return n.links()
}

func snapshot(links []object) string {
	var s strings.Builder
	for _, link := range links {
		s.WriteString(strip(link).json())
	}
	return s.String()
}

// links shows addresses too: what `ip addr` says of a link is all that
// `ip link` says, but for sysctls.
func (n *NS) links() []object {
	n.t.Helper()
	return n.ask("ip", "addr show")[0]
}

// settled reports whether linkwatch, which works up to a second late, has
// drawn its conclusions everywhere: NO-CARRIER is its word and LOWER_UP the
// driver's, and a port is disabled exactly while it has no carrier.
func settled(links []object) bool {
	up := map[string]bool{}
	for _, link := range links {
		up[link.text("ifname")] = link.has("flags", "UP")
	}
	for _, link := range links {
		carrier := link.has("flags", "LOWER_UP")
		if link.has("flags", "UP") && carrier == link.has("flags", "NO-CARRIER") {
			return false
		}
		state := link.portState()
		if state != "" && (state != "disabled") != (carrier && up[link.text("master")]) {
			return false
		}
	}
	return true
}

// tentative reports whether duplicate address detection is still going on.
func tentative(links []object) bool {
	for _, link := range links {
		addrs, _ := link["addr_info"].([]any)
		for _, addr := range addrs {
			if addr.(map[string]any)["tentative"] == true {
				return true
			}
		}
	}
	return false
}

func (o object) has(list, word string) bool {
	words, _ := o[list].([]any)
	return slices.Contains(words, any(word))
}

func (o object) portState() string {
	info, _ := o["linkinfo"].(map[string]any)
	port, _ := info["info_slave_data"].(map[string]any)
	state, _ := port["state"].(string)
	return state
}
