package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// result is what ADD answers.
type result struct {
	CNIVersion string
	Interfaces []iface
	IPs        []address
	Routes     []any
	DNS        map[string]any
}

type iface struct {
	Name       string
	MAC        string
	MTU        *int
	Sandbox    string
	SocketPath *string
	PCIID      *string
}

type address struct {
	Address   string
	Gateway   string
	Interface *int
}

// result demands a successful ADD.
func (a answer) result() *result {
	a.t.Helper()
	r := &result{}
	a.ok().decode(r)
	if len(r.Interfaces) < 3 {
		a.fatalf("want the bridge, the port and the guest's NIC at least")
	}
	return r
}

// nic is the guest's NIC: the last interface of a result.
func (r *result) nic() iface { return r.Interfaces[len(r.Interfaces)-1] }

// port is the bridge port: the last interface but one.
func (r *result) port() iface { return r.Interfaces[len(r.Interfaces)-2] }

// names puts the name of the bridge port for PORT, and its guest's MAC address for
// GUEST.
func (r *result) names(text string) string {
	return strings.NewReplacer("PORT", r.port().Name, "GUEST", r.nic().MAC).Replace(text)
}

// link is a device as `ip -d -j link` shows it.
type link struct {
	IfName   string
	IfAlias  string
	Address  string
	MTU      int
	Master   string
	Group    string
	Flags    []string
	LinkInfo struct {
		Kind string         `json:"info_kind"`
		Port map[string]any `json:"info_slave_data"`
	}
}

// links are the devices of a namespace by name.
func (n *node) links(ns *nstest.NS) map[string]link {
	n.t.Helper()
	var list []link
	n.parse(ns, &list, "ip -d -j link show")
	all := map[string]link{}
	for _, l := range list {
		all[l.IfName] = l
	}
	return all
}

// names are those of the devices, sorted.
func (n *node) names(ns *nstest.NS) []string {
	n.t.Helper()
	return slices.Sorted(maps.Keys(n.links(ns)))
}

// empty demands that the pod has no devices.
func (n *node) empty() {
	n.t.Helper()
	if names := n.names(n.pod); !slices.Equal(names, []string{"lo"}) {
		n.t.Errorf("devices are left in the pod: %q", names)
	}
}

// where is the namespace an interface of a result is in.
func (n *node) where(i iface) *nstest.NS {
	if i.Sandbox == "" {
		return n.host
	}
	return n.pod
}

// entry is one of the bridge's forwarding database.
type entry struct {
	MAC    string
	IfName string
	State  string
	Flags  []string
}

func (e entry) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", e.IfName, e.State, strings.Join(e.Flags, " ")))
}

// entries are those of br0 for one MAC address.
func (n *node) entries(mac string) (found []string) {
	n.t.Helper()
	var all []entry
	n.parse(n.host, &all, "bridge -j fdb show br br0")
	for _, e := range all {
		if e.MAC == mac {
			found = append(found, e.String())
		}
	}
	return found
}

func (n *node) parse(ns *nstest.NS, into any, command string) {
	n.t.Helper()
	words := strings.Fields(command)
	if err := json.Unmarshal([]byte(ns.Run(n.t, words[0], words[1:]...)), into); err != nil {
		n.t.Fatalf("%s: %v", command, err)
	}
}

// sh runs commands in a namespace, a line each, with the names of a result.
func (n *node) sh(ns *nstest.NS, r *result, lines string) {
	n.t.Helper()
	n.used.Store(true)
	if r != nil {
		lines = r.names(lines)
	}
	for line := range strings.Lines(lines) {
		if words := strings.Fields(line); len(words) > 0 {
			ns.Run(n.t, words[0], words[1:]...)
		}
	}
}
