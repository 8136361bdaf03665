package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// node is a box that is a node of a cluster, with the plugin and a bridge br0 that has an uplink to a LAN:
//
//	pods -- br0 -- uplink -- lan0 (10.213.0.1, in a namespace of its own)
type node struct {
	*box
	lan      *nstest.NS
	version  string // of CNI, that the node's networks ask for
	pristine string // the node's network as it is without pods
}

const (
	lanAddr  = "10.213.0.1" // the gateway of the pods' addresses
	dhcpAddr = "10.214.0.1" // of a DHCP server on the LAN, in another subnet
	nodeAddr = "10.99.0.1"  // where Kubernetes is on the node
)

// newNode makes a node whose networks ask for a version of CNI.
func newNode(t *testing.T, version string) *node {
	t.Helper()
	lan := nstest.New(t) // before the box, which sees the mounts that there are
	n := &node{box: newBox(t), lan: lan, version: version}
	n.connect()
	n.installPlugins()
	n.pristine = nstest.World(n.net)
	return n
}

// connect makes the bridge and what is beyond it.
func (n *node) connect() {
	n.t.Helper()
	n.net.Run(n.t, "ip", "addr", "add", nodeAddr+"/32", "dev", "lo")
	nstest.Bridge(n.t, n.net, "br0", "02:00:00:00:00:01")
	nstest.Veth(n.t, n.net, "uplink", n.lan, "lan0")
	n.net.Run(n.t, "ip", "link", "set", "uplink", "address", "02:00:00:00:00:02", "master", "br0")
	n.lan.Run(n.t, "ip", "link", "set", "lan0", "address", "02:00:00:00:00:03")
	for _, addr := range []string{lanAddr, dhcpAddr} {
		n.lan.Run(n.t, "ip", "addr", "add", addr+"/24", "dev", "lan0")
	}
	nstest.WaitForwarding(n.t, n.net, "uplink")
}

// clean demands that pods have left no trace.
func (n *node) clean() {
	n.t.Helper()
	n.cleanNetwork()
	for what, files := range map[string][]string{"addresses": n.found("pools/*/10.*"), "namespaces": n.found(podNamespaces...)} {
		if len(files) > 0 {
			n.t.Errorf("%s are still there: %q", what, files)
		}
	}
}

func (n *node) cleanNetwork() {
	n.t.Helper()
	if diff := nstest.Diff(n.pristine, nstest.World(n.net)); diff != "" {
		n.t.Errorf("the node's network is another (-before +after):\n%s", diff)
	}
}

// podNamespaces are where containerd and CRI-O mount the network namespaces of pods.
var podNamespaces = []string{"runtime/state/io.containerd.grpc.v1.cri/netns/*", "runtime/ns/netns/*"}

// found are the files of the node that match.
func (n *node) found(patterns ...string) (files []string) {
	n.t.Helper()
	for _, pattern := range patterns {
		found, err := filepath.Glob(n.path(pattern))
		must(n.t, err)
		files = append(files, found...)
	}
	return files
}

// onLAN is a command beyond the uplink.
func (n *node) onLAN(name string, args ...string) *exec.Cmd {
	return n.command("nsenter", append([]string{"--net=" + n.lan.Path, "--", name}, args...)...)
}

// path is that of a file of the node.
func (n *node) path(elements ...string) string {
	return filepath.Join(append([]string{n.dir}, elements...)...)
}

func (n *node) write(content []byte, elements ...string) {
	n.t.Helper()
	must(n.t, os.MkdirAll(filepath.Dir(n.path(elements...)), 0o755))
	must(n.t, os.WriteFile(n.path(elements...), content, 0o644))
}

// conf is a piece of a network configuration.
type conf map[string]any

// writeNetworks writes a directory of networks for each kind of pod. They are in one file system with the runtime, which watches them.
func (n *node) writeNetworks() {
	n.t.Helper()
	n.writeNetwork("vms/10-vms", n.vms())
	n.writeNetwork("plain/10-plain", n.plain())
	n.writeNetwork("pair/10-vms", n.vms())
	n.writeNetwork("pair/20-dhcp", n.network("dhcp", guarded))
}

// handlers are the kinds of pods that ask for other networks than "vms", by the name of containerd's runtime handler.
var handlers = []string{"plain", "pair"}

// vms is a network for virtual machines, whose addresses come from a pool.
func (n *node) vms() conf { return n.network("vms", guarded, n.pool("10.213.0.10", "10.213.0.99")) }

// plain is one for containers.
func (n *node) plain() conf {
	return n.network("plain", conf{"mode": "veth"}, n.pool("10.213.0.100", "10.213.0.199"))
}

// guarded is what virtual machines are for: no flooding, no learning, no spoofing.
var guarded = conf{"macTableManager": "libvirt", "macspoofchk": true, "capabilities": conf{"mac": true}}

// network is a network of tapbridge on br0.
func (n *node) network(name string, options ...conf) conf {
	plugin := conf{"type": "tapbridge", "bridge": "br0"}
	for _, o := range options {
		maps.Copy(plugin, o)
	}
	return conf{"cniVersion": n.version, "name": name, "plugins": []conf{plugin}}
}

func (n *node) pool(first, last string) conf {
	ranges := []any{[]conf{{"subnet": "10.213.0.0/24", "rangeStart": first, "rangeEnd": last, "gateway": lanAddr}}}
	return conf{"ipam": conf{"type": "host-local", "dataDir": n.path("pools"), "ranges": ranges, "routes": []conf{{"dst": "0.0.0.0/0"}}}}
}

func (n *node) writeNetwork(name string, c conf) {
	n.t.Helper()
	n.write(asJSON(n.t, c), "networks", name+".conflist")
}

func asJSON(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	must(t, err)
	return text
}
