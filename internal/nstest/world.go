package nstest

import (
	"bytes"
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
	for tool, these := range queries {
		lines = append(lines, n.report(tool, these...)...)
	}
	lines = append(lines, n.trafficControl()...)
	lines = append(lines, n.sysctls()...)
	slices.Sort(lines)
	return lines
}

// query is a command of iproute2's, and what of its answer belongs to the world.
type query struct {
	noun    string
	command string
	keep    func(object) bool
}

var queries = map[string][]query{
	"ip": {
		{"route", "route show table all", isOwnRoute},
		{"rule", "rule show", all},
		{"neigh", "neigh show nud permanent", all},
	},
	"bridge": {
		{"fdb", "fdb show", isStatic},
		{"vlan", "vlan show", all}, // the last: not every kernel has it
	},
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
	var filters []query
	for _, qdisc := range n.ask("tc", "qdisc show")[0] {
		dev := qdisc.text("dev")
		for _, hook := range hooks(qdisc) {
			noun := "filter " + dev + " " + automatic(hook[len(hook)-1])
			filters = append(filters, query{noun, "filter show dev " + dev + " " + strings.Join(hook, " "), all})
		}
		lines = append(lines, "qdisc "+strip(qdisc).json())
	}
	return append(lines, n.report("tc", filters...)...)
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

// report is one line for each object that a query finds and keeps.
func (n *NS) report(tool string, queries ...query) (lines []string) {
	n.t.Helper()
	var commands []string
	for _, q := range queries {
		commands = append(commands, q.command)
	}
	for i, objects := range n.ask(tool, commands...) {
		for _, o := range objects {
			if q := queries[i]; q.keep(o) {
				lines = append(lines, q.noun+" "+strip(o).json())
			}
		}
	}
	return lines
}

// ask has one process of iproute2 run commands, and decodes what it says to each in
// JSON. A kernel without the feature has no objects of the last one's kind; the process
// ends there, so it must be the last. Starting one is what takes time, under emulation above all.
func (n *NS) ask(tool string, commands ...string) (answers [][]object) {
	n.t.Helper()
	if len(commands) == 0 {
		return nil
	}
	cmd := n.Command(tool, "-d", "-j", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n"))
	out, err := cmd.Output()
	var exit *exec.ExitError
	lacking := errors.As(err, &exit) && strings.Contains(string(exit.Stderr), "not supported")
	if err != nil && !lacking {
		n.t.Fatalf("%s %q: %v", tool, commands, err)
	}
	answers = make([][]object, len(commands))
	said := json.NewDecoder(bytes.NewReader(out))
	for i := range answers {
		if err := said.Decode(&answers[i]); err != nil && !(lacking && i == len(answers)-1) {
			n.t.Fatalf("%s %q: %v in %q", tool, commands[i], err, out)
		}
	}
	return answers
}
