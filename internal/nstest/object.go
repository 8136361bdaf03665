package nstest

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
)

// object is one thing as iproute2 shows it in JSON.
type object map[string]any

// volatile are the keys that tell worlds apart which are the same to a test.
var volatile = map[string]bool{
	// Handed out in order of arrival.
	"ifindex": true, "link_index": true, "link_netnsid": true,
	"id": true, "no": true, "designated_port": true, // of a bridge port; id also of an eBPF program
	"index": true, // of a tc action
	"tag":   true, // of an eBPF program: a digest of it, and of the indexes in it
	// Clocks, lifetimes and statistics.
	"hello_timer": true, "tcn_timer": true, "topology_change_timer": true, "gc_timer": true,
	"hold_timer": true, "message_age_timer": true, "forward_delay_timer": true,
	"valid_life_time": true, "preferred_life_time": true, "expires": true, "used": true,
	"load_time":           true, // of an eBPF program
	"direct_packets_stat": true,
	// On the way to what is shown elsewhere: the flags tell the same as the
	// operstate, which stays UNKNOWN on a link that never lost its carrier.
	"operstate": true, "tentative": true,
	"config_pending": true, "topology_change": true, "topology_change_detected": true, "topology_change_ack": true,
}

// strip returns the object without what is volatile.
func strip(o object) object {
	kept := object{}
	for key, value := range o {
		switch name, named := value.(string); {
		case volatile[key]:
		case key == "bpf_name" && named:
			kept[key] = number.ReplaceAllString(name, "N")
		default:
			kept[key] = stable(value)
		}
	}
	return kept
}

// number is a part of the name of an eBPF program that may have been handed out in
// order of arrival, as the index of a link.
var number = regexp.MustCompile(`\d+`)

func stable(value any) any {
	switch value := value.(type) {
	case map[string]any:
		return map[string]any(strip(value))
	case []any:
		kept := make([]any, len(value))
		for i, inner := range value {
			kept[i] = stable(inner)
		}
		return kept
	case string:
		return automatic(value)
	}
	return value
}

// autoHandle is a qdisc handle that the kernel chose, by a counter it keeps
// for all namespaces together. ffff: is ingress and clsact.
var autoHandle = regexp.MustCompile(`^([89a-e][0-9a-f]{3}|f[0-9a-e][0-9a-f]{2}|ff[0-9a-e][0-9a-f]|fff[0-9a-e]):([0-9a-f]*)$`)

func automatic(handle string) string {
	return autoHandle.ReplaceAllString(handle, "auto:$2")
}

// flatten gives each attribute its own line, so that a diff shows the one
// that differs. Objects in a list have one line each.
func flatten(prefix string, o object) (lines []string) {
	for _, key := range slices.Sorted(maps.Keys(o)) {
		switch value := o[key].(type) {
		case map[string]any:
			lines = append(lines, flatten(prefix+" "+key, value)...)
		case []any:
			for _, item := range value {
				lines = append(lines, fmt.Sprintf("%s %s %s", prefix, key, text(item)))
			}
		default:
			lines = append(lines, fmt.Sprintf("%s %s %s", prefix, key, text(value)))
		}
	}
	return lines
}

func (o object) text(key string) string {
	s, _ := o[key].(string)
	return s
}

func (o object) json() string { return text(map[string]any(o)) }

func text(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	line, _ := json.Marshal(value) // it came from JSON
	return string(line)
}
