package conformance

import (
	"errors"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

const (
	newest    = "1.1.0"
	bridgeMAC = "02:00:00:00:00:01"
	guestMAC  = "52:54:00:00:00:01"
	guestPort = "fe:54:00:00:00:01" // the MAC of the devices that stand for that guest
)

// The uplink of the bridge, and what is behind it.
var (
	uplinkMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	switchMAC = net.HardwareAddr{2, 0, 0, 0, 0, 3}
)

// versions are those that the plugin must support.
var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// modes are all of the plugin's.
var modes = []string{"tap", "veth", "host-tap"}

// node is a machine with a bridge br0, which has an uplink, and a pod.
type node struct {
	t         testing.TB
	host, pod *nstest.NS
	ipam      *recorder
	settings  conf        // what conf starts from
	used      atomic.Bool // something may have been done to it
}

func newNode(t testing.TB, settings ...conf) *node {
	t.Helper()
	n := &node{t: t, host: nstest.New(t), pod: nstest.New(t), ipam: newRecorder(t)}
	n.settings = conf{"cniVersion": newest, "name": "lan", "type": "tapbridge", "bridge": "br0"}.with(settings...)
	nstest.Bridge(t, n.host, "br0", bridgeMAC)
	n.uplink()
	return n
}

// uplink gives the bridge a port, as every node's has one. It is also for the
// comparison: an empty bridge keeps the segment size limit of its last port.
func (n *node) uplink() {
	n.t.Helper()
	h := n.host.Handle()
	master, err := h.LinkByName("br0")
	if err != nil {
		n.t.Fatal(err)
	}
	attrs := netlink.LinkAttrs{Name: "uplink", HardwareAddr: uplinkMAC, MasterIndex: master.Attrs().Index}
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "switch", PeerHardwareAddr: switchMAC}); err != nil {
		n.t.Fatal(err)
	}
	for _, name := range []string{"uplink", "switch"} {
		n.host.Do(func() { err = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0) })
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
			n.t.Fatal(err)
		}
		link, err := h.LinkByName(name)
		if err == nil {
			err = h.LinkSetUp(link)
		}
		if err != nil {
			n.t.Fatal(err)
		}
	}
}

// eachMode runs a test in every mode on a node of its own.
func eachMode(t *testing.T, test func(t *testing.T, n *node)) {
	inModes(t, modes, test)
}

// inModes is eachMode for a test that makes sense in some modes only.
func inModes(t *testing.T, modes []string, test func(t *testing.T, n *node)) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			test(t, newNode(t, conf{"mode": mode}))
		})
	}
}

// eachModeAlone is eachMode for tests that want many nodes.
func eachModeAlone(t *testing.T, test func(t *testing.T, mode string)) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			test(t, mode)
		})
	}
}

func (n *node) mode() string { return n.settings["mode"].(string) }

// conf is a network configuration.
type conf map[string]any

// conf is the node's configuration with changes.
func (n *node) conf(changes ...conf) conf { return n.settings.with(changes...) }

// with returns a changed copy; nil removes a key.
func (c conf) with(changes ...conf) conf {
	c = maps.Clone(c)
	for _, change := range changes {
		maps.Copy(c, change)
	}
	maps.DeleteFunc(c, func(_ string, value any) bool { return value == nil })
	return c
}

// recording is the configuration of an IPAM delegate that notes its calls.
var recording = conf{"ipam": conf{"type": recorderName, "pool": "some-pool"}}

// libvirt lets the plugin keep the bridge's MAC table.
var libvirt = conf{"macTableManager": "libvirt"}

// installing keeps two tests from installing at the same time.
var installing sync.Mutex

// tool is a program, whose Debian package is installed when it is missing. It
// must succeed with the arguments.
func tool(t testing.TB, program, debian string, args ...string) string {
	t.Helper()
	installing.Lock()
	defer installing.Unlock()
	if _, err := exec.LookPath(program); err != nil {
		t.Logf("installing %s", debian)
		if out, err := exec.Command("apt-get", "-qq", "install", "-y", "--no-install-recommends", debian).CombinedOutput(); err != nil {
			nstest.Skip(t, "no %s, and it cannot be installed: %v: %s", program, err, out)
		}
	}
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		nstest.Skip(t, "%s does not work here: %v: %s", program, err, out)
	}
	return program
}

func strace(t testing.TB) string { return tool(t, "strace", "strace", "-o", "/dev/null", "true") }

// unchanged demands that the node is the same before and after.
func (n *node) unchanged(during func()) {
	n.t.Helper()
	before := n.world()
	during()
	n.same(before)
}

// newWorld is that of every node to which nothing has been done yet.
var (
	newWorld string
	firstNew sync.Once
)

func (n *node) world(more ...*nstest.NS) string {
	n.t.Helper()
	if !n.used.Load() && len(more) == 0 {
		firstNew.Do(func() { newWorld = nstest.World(n.host, n.pod) })
		return newWorld
	}
	return nstest.World(slices.Concat([]*nstest.NS{n.host, n.pod}, more)...)
}

func (n *node) same(before string, more ...*nstest.NS) {
	n.t.Helper()
	if diff := nstest.Diff(before, n.world(more...)); diff != "" {
		n.t.Errorf("the world is another (-before +after):\n%s", diff)
	}
}

func writeFile(t testing.TB, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
