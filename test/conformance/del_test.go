package conformance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// kinds are configurations that leave different things in the kernel.
var kinds = map[string]conf{
	"kernel":  {},
	"sticky":  libvirt,
	"static":  libvirt.with(conf{"fdb": "static"}),
	"roaming": libvirt.with(conf{"fdb": "roaming"}),
	"flags":   libvirt.with(conf{"macspoofchk": true, "portIsolation": true, "hairpinMode": true, "mtu": 1400}),
	"IPAM":    recording,
}

// After ADD, DEL removes interface, port, FDB entry and tc.
func Test46RemovesAll(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		before := n.world()
		for name, c := range kinds {
			added := n.call("ADD", n.conf(c)).ok()
			n.call("DEL", n.conf(c, added.prev())).silent()
			if n.same(before); t.Failed() {
				t.Fatalf("by %s", name)
			}
		}
	})
}

// DEL again and again succeeds.
func Test47DELTwice(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.unchanged(func() {
			added := n.call("ADD", n.conf(libvirt)).ok()
			for range 3 {
				n.call("DEL", n.conf(libvirt, added.prev())).silent()
			}
		})
	})
}

// DEL of what was never added succeeds.
func Test48DELWithoutADD(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.unchanged(func() {
			n.call("DEL", n.conf()).silent()
			n.call("DEL", n.conf(conf{"bridge": "missing"})).silent()
		})
	})
}

// DEL without prevResult cleans up as well.
func Test49DELWithoutPrevResult(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.unchanged(func() {
			n.call("ADD", n.conf(libvirt, recording)).ok()
			n.call("DEL", n.conf(libvirt, recording)).silent()
			n.call("ADD", n.conf(libvirt, recording)).ok()
			n.call("DEL", n.conf(libvirt, recording, conf{"prevResult": json.RawMessage("null")})).silent()
		})
		if diff := cmp.Diff([]string{"ADD", "DEL", "ADD", "DEL"}, n.ipam.verbs()); diff != "" {
			t.Errorf("calls of the delegate (-want +got):\n%s", diff)
		}
	})
}

// DEL with a CNI_NETNS that is empty, missing or a plain file cleans up and
// calls the delegate.
func Test50DELWithoutNamespace(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		dir := t.TempDir()
		plain, missing := filepath.Join(dir, "plain"), filepath.Join(dir, "missing")
		writeFile(t, plain)
		n.unchanged(func() {
			for _, path := range []string{unset, "", plain, missing, dir, "/proc/self/ns/mnt"} {
				n.call("ADD", n.conf(recording)).ok()
				n.call("DEL", n.conf(recording), env{"CNI_NETNS": path}).silent()
				if n.ipam.last().Verb != "DEL" {
					t.Errorf("CNI_NETNS %q: the delegate has not been called", path)
				}
			}
		})
	})
}

// The same when the namespace is really gone, and at the moment it goes: the
// kernel takes its time with the devices in it.
func Test50DELAfterTheNamespace(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		before := n.world()
		for range 10 {
			var path string
			t.Run("pod", func(t *testing.T) {
				path = nstest.New(t).Path
				n.call("ADD", n.conf(libvirt, recording), env{"CNI_NETNS": path}).ok()
			})
			if _, err := os.Stat(path); err == nil {
				t.Fatal("the namespace is still there")
			}
			n.call("DEL", n.conf(libvirt, recording), env{"CNI_NETNS": path}).silent()
		}
		n.same(before)
	})
}

// damage is done to an attachment before its DEL.
type damage struct {
	modes   []string // nil: all
	host    string   // commands
	pod     string
	restore string // commands that make the host comparable again
}

var damages = map[string]damage{
	"tap is gone":            {modes: []string{"tap"}, pod: "ip link del tap1"},
	"interface is gone":      {modes: []string{"tap", "veth"}, pod: "ip link del net1"},
	"port is gone":           {host: "ip link del PORT"},
	"entry is gone":          {host: "bridge fdb del GUEST dev PORT master"},
	"entry has moved":        {host: "bridge fdb replace GUEST dev uplink master static"},
	"entry is local":         {host: "bridge fdb replace GUEST dev PORT master permanent"},
	"tap's qdisc is gone":    {modes: []string{"tap"}, pod: "tc qdisc del dev tap1 ingress"},
	"qdiscs are gone":        {modes: []string{"tap"}, pod: "tc qdisc del dev tap1 ingress\n tc qdisc del dev net1 ingress"},
	"port has left":          {host: "ip link set PORT nomaster"},
	"port is on another":     {host: "ip link add br1 type bridge\n ip link set PORT master br1", restore: "ip link del br1"},
	"port is down":           {host: "ip link set PORT down"},
	"port has another alias": {host: "ip link set PORT alias somebody's"},
	"port was renamed":       {modes: []string{"tap", "veth"}, host: "ip link set PORT down\n ip link set PORT name other"},
	"interface was renamed":  {modes: []string{"tap", "veth"}, pod: "ip link set net1 down\n ip link set net1 name other"},
	"tap was renamed":        {modes: []string{"tap"}, pod: "ip link set tap1 down\n ip link set tap1 name other"},
}

// DEL succeeds whatever has been deleted, moved or changed since ADD.
func Test51DELAfterDamage(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, mode string) {
		for name, d := range damages {
			if d.modes != nil && !slices.Contains(d.modes, mode) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, conf{"mode": mode}, libvirt)
				n.unchanged(func() {
					added := n.call("ADD", n.conf())
					n.sh(n.host, added.result(), d.host)
					n.sh(n.pod, added.result(), d.pod)
					n.call("DEL", n.conf(added.prev())).silent()
					n.sh(n.host, nil, d.restore)
				})
			})
		}
	})
}

// The bridge may have been deleted as well.
func Test51DELAfterTheBridge(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		added := n.call("ADD", n.conf(libvirt)).ok()
		n.sh(n.host, nil, "ip link del br0")
		n.call("DEL", n.conf(libvirt, added.prev())).silent()
		if diff := cmp.Diff([]string{"lo", "switch", "uplink"}, n.names(n.host)); diff != "" {
			t.Errorf("devices of the host (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"lo"}, n.names(n.pod)); diff != "" {
			t.Errorf("devices of the pod (-want +got):\n%s", diff)
		}
	})
}

// When IPAM fails, our own devices have been removed before, and its error is
// returned.
func Test52IPAMFailureOnDEL(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		before := n.world()
		added := n.call("ADD", n.conf(recording))
		port := added.result().port().Name
		n.ipam.on("DEL", failure(123, "no lease"))
		n.call("DEL", n.conf(recording, added.prev())).fails(123, "no lease")
		n.same(before)
		if links := n.ipam.last().Links; slices.Contains(links, port) {
			t.Errorf("port %q was still there when the delegate was called: %q", port, links)
		}
		n.ipam.on("DEL", behaviour{})
		n.call("DEL", n.conf(recording, added.prev())).silent()
	})
}

// DEL does not remove a link of somebody else: of the same name without an
// attachment of ours, of our group beside one.
func Test53ForeignLinksStay(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		r := n.call("ADD", n.conf()).result()
		group := n.links(n.host)[r.port().Name].Group
		n.call("DEL", n.conf()).ok()
		for _, kind := range []string{"ip link add NAME type bridge", "ip link add NAME type veth", "ip tuntap add NAME mode tap"} {
			create := func(name string) string { return strings.ReplaceAll(kind, "NAME", name) + "\n" }
			n.sh(n.pod, r, create("net1")+create("tap1"))
			n.sh(n.host, r, create("PORT"))
			n.unchanged(func() {
				n.call("DEL", n.conf()).silent()
				n.call("DEL", n.conf(), env{"CNI_NETNS": ""}).silent()
			})
			n.sh(n.pod, r, "ip link del net1\n ip link del tap1")
			n.sh(n.host, r, "ip link del PORT")
		}
		for _, ns := range []*nstest.NS{n.host, n.pod} {
			n.sh(ns, r, "ip link add foreign type bridge\n ip link set foreign group "+group)
		}
		n.unchanged(func() {
			for _, path := range []string{n.pod.Path, ""} {
				n.call("ADD", n.conf()).ok()
				n.call("DEL", n.conf(), env{"CNI_NETNS": path}).silent()
			}
		})
	})
}

// DEL does not remove what has taken the place of ours.
func Test53SuccessorsStay(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		r := n.call("ADD", n.conf(libvirt)).result()
		n.sh(n.host, r, "ip link del PORT\n ip tuntap add PORT mode tap\n ip link set PORT master br0")
		if n.mode() == "tap" {
			n.sh(n.pod, r, "ip link del tap1")
		}
		n.sh(n.pod, r, "ip tuntap add tap1 mode tap\n ip link add net1 type bridge")
		n.unchanged(func() { n.call("DEL", n.conf(libvirt)).silent() })
	})
}

// DEL cleans up by container id and interface name alone, with another
// configuration and without any state on disk.
func Test54DELWithAnotherConfiguration(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		others := []conf{
			{"bridge": "uplink"},
			{"bridge": nil},
			{"name": "other"},
			{"macTableManager": "nonsense"},
			{"frobnicate": 1},
			{"mac": "nonsense"},
			{"mtu": -1},
			{"runtimeConfig": 5},
			{"name": nil, "type": nil, "bridge": nil, "cniVersion": nil, "mode": nil},
			{"prevResult": "nonsense"},
			{"mode": "veth"},
			{"mode": "host-tap"},
			{"mode": "tap"},
			{"cniVersion": "0.4.0"},
		}
		n.unchanged(func() {
			for _, other := range others {
				n.call("ADD", n.conf(libvirt)).ok()
				n.call("DEL", n.conf(other)).silent()
			}
			n.call("ADD", n.conf(libvirt)).ok()
			n.prepare("DEL", n.conf()).masked("mount -t tmpfs none /run; mount -t tmpfs none /var/lib").run().silent()
		})
	})
}

// DEL for 0.3.1, whose runtimes pass no prevResult.
func Test55DELForOldRuntimes(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for _, version := range []string{"0.3.0", "0.3.1"} {
			c := n.conf(libvirt, recording, conf{"cniVersion": version})
			n.unchanged(func() {
				n.call("ADD", c).ok()
				n.call("DEL", c).silent()
			})
		}
	})
}

// DEL of one attachment leaves another intact: on the same bridge, in the same
// pod, of the same container, or of the same interface name.
func Test56OthersStay(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		second := nstest.New(t)
		others := map[string]env{
			"other container":      {"CNI_CONTAINERID": "c2", "CNI_IFNAME": "net2"},
			"same container":       {"CNI_IFNAME": "net3"},
			"other pod, same name": {"CNI_CONTAINERID": "c3", "CNI_NETNS": second.Path},
		}
		results := map[string]conf{}
		for name, other := range others {
			results[name] = n.call("ADD", n.conf(libvirt), other).ok().prev()
		}
		before := n.world(second)
		for _, path := range []string{n.pod.Path, ""} {
			n.call("ADD", n.conf(libvirt)).ok()
			n.call("DEL", n.conf(libvirt), env{"CNI_NETNS": path}).silent()
			n.same(before, second)
		}
		for name, other := range others {
			n.call("CHECK", n.conf(libvirt, results[name]), other).silent()
		}
	})
}

// DEL after a failed ADD succeeds and leaves nothing.
func Test57DELAfterFailedADD(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, mode string) {
		for _, name := range []string{"interface name is taken", "new bridge, delegate fails", "/proc/sys is read-only"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, conf{"mode": mode})
				if setup := faults[name].setup; setup != nil {
					setup(n)
				}
				n.unchanged(func() {
					n.strike(faults[name])
					n.call("DEL", n.conf(faults[name].conf)).silent()
				})
			})
		}
	})
}
