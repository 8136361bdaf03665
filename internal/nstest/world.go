package nstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// World is everything that is configured in the namespaces as sorted lines,
// each prefixed by the position of its namespace: links with all attributes,
// addresses, routes, rules, permanent neighbours, static FDB entries, VLANs,
// qdiscs, filters and sysctls. Two worlds are equal when nothing a test could
// care about has changed in between, whatever has come and gone meanwhile.
//
// It first waits until the kernel has drawn its conclusions from changes of
// carrier, which it does up to a second late. It does not show MDB entries,
// tc classes, eBPF programs at tcx hooks and netfilter.
func World(namespaces ...*NS) string {
	var world strings.Builder
	for i, ns := range namespaces {
		ns.t.Helper()
		for _, line := range ns.lines() {
			fmt.Fprintf(&world, "%d %s\n", i, line)
		}
	}
	return world.String()
}

// Diff lists the lines that only one of two worlds has, "-" for the first and
// "+" for the second; it is empty when they are equal. Each line says by
// itself what it is about, so there is no need for those around it.
func Diff(before, after string) string {
	surplus := map[string]int{}
	for line := range strings.Lines(before) {
		surplus[line]--
	}
	for line := range strings.Lines(after) {
		surplus[line]++
	}
	var diff strings.Builder
	for _, line := range slices.Sorted(maps.Keys(surplus)) {
		diff.WriteString(strings.Repeat("- "+line, max(0, -surplus[line])))
		diff.WriteString(strings.Repeat("+ "+line, max(0, surplus[line])))
	}
	return diff.String()
}

func (n *NS) lines() (lines []string) {
	n.t.Helper()
	links := n.settle(settled)
	for _, link := range links {
		lines = append(lines, flatten("link "+link.text("ifname"), strip(link))...)
		lines = append(lines, n.newerPortAttrs(link)...)
	}
	for _, q := range queries {
		lines = append(lines, n.report(q.noun, q.keep, q.command...)...)
	}
	lines = append(lines, n.trafficControl()...)
	lines = append(lines, n.sysctls()...)
	slices.Sort(lines)
	return lines
}

var queries = []struct {
	noun    string
	command []string
	keep    func(object) bool
}{
	{"route", strings.Fields("ip -d -j route show table all"), isOwnRoute},
	{"rule", strings.Fields("ip -d -j rule"), all},
	{"neigh", strings.Fields("ip -d -j neigh show nud permanent"), all},
	{"fdb", strings.Fields("bridge -d -j fdb show"), isStatic},
	{"vlan", strings.Fields("bridge -d -j vlan show"), all},
}

func all(object) bool { return true }

// isOwnRoute is false for what the kernel derives from addresses in the local
// table; those of an IPv6 address appear only when it is no longer tentative.
func isOwnRoute(route object) bool {
	return route.text("table") != "local" || route.text("protocol") != "kernel"
}

// isStatic is false for learned entries, and for the multicast groups that
// every link joins and leaves as addresses come and go.
func isStatic(entry object) bool {
	mac, err := net.ParseMAC(entry.text("mac"))
	group := err == nil && mac[0]&1 == 1 && entry.has("flags", "self")
	state := entry.text("state")
	return !group && (state == "permanent" || state == "static")
}

// trafficControl asks for the filters of each qdisc, because tc shows only
// those of one at a time.
func (n *NS) trafficControl() (lines []string) {
	n.t.Helper()
	for _, qdisc := range n.objects("tc", "-d", "-j", "qdisc", "show") {
		dev := qdisc.text("dev")
		for _, hook := range hooks(qdisc) {
			noun := "filter " + dev + " " + automatic(hook[len(hook)-1])
			show := append([]string{"tc", "-d", "-j", "filter", "show", "dev", dev}, hook...)
			lines = append(lines, n.report(noun, all, show...)...)
		}
		lines = append(lines, "qdisc "+strip(qdisc).json())
	}
	return lines
}

// hooks are the places of a qdisc where filters can be, in tc's words.
func hooks(qdisc object) [][]string {
	switch {
	case qdisc.text("kind") == "ingress":
		return [][]string{{"ingress"}}
	case qdisc.text("kind") == "clsact":
		return [][]string{{"ingress"}, {"egress"}}
	case qdisc.text("handle") == "0:": // the default, which takes no filters
		return nil
	}
	return [][]string{{"parent", qdisc.text("handle")}}
}

// newerPortAttrs are the port flags that iproute2 6.1 does not know, such as
// mab, by number.
func (n *NS) newerPortAttrs(link object) (lines []string) {
	const (
		lastKnown = 39 // IFLA_BRPORT_LOCKED
		groups    = 41 // IFLA_BRPORT_MCAST_N_GROUPS, a statistic
	)
	n.t.Helper()
	if link["master"] == nil {
		return nil
	}
	for kind, value := range portAttrs(n.t, n, link.text("ifname")) {
		if kind > lastKnown && kind != groups {
			lines = append(lines, fmt.Sprintf("link %s brport.%d %x", link.text("ifname"), kind, value))
		}
	}
	return lines
}

// sysctls are read by a thread in the namespace: /proc/sys/net shows that of
// its reader.
func (n *NS) sysctls() (lines []string) {
	n.t.Helper()
	n.Do(func() {
		for _, pattern := range []string{"net/ipv4/conf/*/*", "net/ipv6/conf/*/*", "net/bridge/*"} {
			lines = append(lines, readSysctls(pattern)...)
		}
	})
	return lines
}

// costly sysctls wait for everybody else's link changes (rtnl) at each read. The
// first is a link's attribute as well; the second nobody here sets.
var costly = []string{"addr_gen_mode", "stable_secret"}

func readSysctls(pattern string) (lines []string) {
	const root = "/proc/sys/"
	files, _ := filepath.Glob(root + pattern)
	for _, file := range files {
		if slices.Contains(costly, filepath.Base(file)) {
			continue
		}
		if value, err := os.ReadFile(file); err == nil {
			lines = append(lines, "sysctl "+strings.TrimPrefix(file, root)+" "+strings.TrimSpace(string(value)))
		}
	}
	return lines
}

// report is one line for each object that the command shows and keep admits.
func (n *NS) report(noun string, keep func(object) bool, command ...string) (lines []string) {
	n.t.Helper()
	for _, o := range n.objects(command...) {
		if keep(o) {
			lines = append(lines, noun+" "+strip(o).json())
		}
	}
	return lines
}

// objects decodes what a command of iproute2 says in JSON. A kernel without
// the feature has no objects of its kind.
func (n *NS) objects(command ...string) (objects []object) {
	n.t.Helper()
	out, err := n.Command(command[0], command[1:]...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.Contains(string(exit.Stderr), "not supported") {
		return nil
	}
	if err != nil {
		n.t.Fatalf("%q: %v", command, err)
	}
	if len(out) == 0 {
		return nil
	}
	if err := json.Unmarshal(out, &objects); err != nil {
		n.t.Fatalf("%q: %v in %q", command, err, out)
	}
	return objects
}
