package conformance

import (
	"net"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// upheaval is what somebody else does to a live attachment, on the host and in the
// pod, with the names of a result.
type upheaval struct {
	modes     []string // nil: all
	host, pod string
	says      string // of CHECK; "": it need not notice
	needsPath bool   // the port, the only way to the pod without its path, has gone
	stays     string // what is somebody else's afterwards, and is taken away here; on the host
	staysPod  string // in the pod
}

var upheavals = map[string]upheaval{
	"bridge deleted":             {host: "ip link del br0", says: "br0"},
	"bridge made again":          {host: "ip link del br0\nip link add br0 type bridge\nip link set br0 up", says: "br0"},
	"port moved to another":      {host: "ip link add br7 type bridge\nip link set PORT master br7", says: "br7", stays: "ip link del br7"},
	"port renamed":               {host: "ip link set PORT down\nip link set PORT name other0", says: "is missing"},
	"alias of the port":          {host: "ip link set PORT alias mine", says: "mine"},
	"alias of the port, emptied": {host: "ip link set PORT alias ", says: "alias"},
	"alias of another's record":  {host: "ip link set PORT alias RECORD", says: "alias"},
	"tap renamed":                {modes: inTap, pod: "ip link set tap1 down\nip link set tap1 name mytap", says: "tap"},
	"tap moved to the host":      {modes: inTap, pod: "ip link set tap1 netns HOST", says: "tap"},
	"tap replaced":               {modes: inTap, pod: "ip link del tap1\nip tuntap add tap1 mode tap", says: "tap", staysPod: "ip link del tap1"},
	"tap in another's bridge":    {modes: inTap, pod: "ip link add k6t type bridge\nip link set tap1 master k6t", staysPod: "ip link del k6t"},
	"alias of the tap":           {modes: inTap, pod: "ip link set tap1 alias mine", says: "mine"},
	"pod interface renamed":      {modes: []string{"tap", "veth"}, pod: "ip link set net1 down\nip link set net1 name eth9", says: "is missing"},
	"pod interface replaced":     {modes: []string{"tap", "veth"}, pod: "ip link del net1\nip link add net1 type bridge", says: "is missing", needsPath: true, staysPod: "ip link del net1"},
}

// Whatever others do to an attachment: CHECK says so, DEL succeeds, with the pod's
// namespace and without, removes what is ours and nothing else, and the next ADD
// works.
func TestUpheaval(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, mode string) {
		for name, u := range upheavals {
			if u.modes != nil && !contains(u.modes, mode) {
				continue
			}
			for _, known := range []env{nil, nothingKnown} {
				if known != nil && u.needsPath {
					continue
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					newNode(t, conf{"mode": mode}, libvirt).upheaval(u, known)
				})
			}
		}
	})
}

func contains(words []string, word string) bool {
	return strings.Contains(" "+strings.Join(words, " ")+" ", " "+word+" ")
}

func (n *node) upheaval(u upheaval, known env) {
	n.t.Helper()
	before := n.links(n.host)
	added := n.call("ADD", n.conf()).ok()
	n.upset(u, added)
	if u.says != "" {
		n.call("CHECK", n.conf(added.prev())).fails(100, u.says)
	}
	n.call("DEL", n.conf(), known).silent()
	r := added.result()
	n.tidy(n.host, r, u.stays)
	n.tidy(n.pod, r, u.staysPod)
	n.empty()
	after := n.links(n.host)
	for name := range after {
		if _, was := before[name]; !was {
			n.t.Errorf("%s is left on the host", name)
		}
	}
	if _, there := after["br0"]; !there {
		n.sh(n.host, nil, "ip link add br0 type bridge\nip link set br0 up")
	}
	again := n.call("ADD", n.conf()).ok()
	n.call("CHECK", n.conf(again.prev())).silent()
}

func (n *node) upset(u upheaval, added answer) {
	n.t.Helper()
	r := added.result()
	record := "tapbridge/1_net=lan_id=c2_if=net1_br=br0_mac=" + guestMAC + "_mode=veth_fdb=kernel_mtu=1500/1500"
	for ns, lines := range map[*nstest.NS]string{n.host: u.host, n.pod: u.pod} {
		for line := range strings.Lines(lines) {
			words := strings.Split(strings.TrimSuffix(r.names(strings.NewReplacer("RECORD", record, "HOST", n.host.Path).Replace(line)), "\n"), " ")
			for i, word := range words {
				if strings.HasPrefix(word, "tapbridge/") {
					words[i] = strings.ReplaceAll(word, "_", " ")
				}
			}
			ns.Run(n.t, words[0], words[1:]...)
		}
	}
}

func (n *node) tidy(ns *nstest.NS, r *result, line string) {
	n.t.Helper()
	if line != "" {
		n.sh(ns, r, line)
	}
}

// A node loses its power: of all that was, IPAM's data on the disk is left, and a
// configuration. Then DEL and GC come for what the runtime remembers, and the same
// ADD.
func TestPowerLoss(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		c := n.conf(libvirt, hostLocal(t))
		n.call("ADD", c).ok()
		n.call("ADD", c, of("c2", "net2")).ok()
		n.host, n.pod = nstest.New(t), nstest.New(t)
		before := n.world()
		n.call("DEL", c, env{"CNI_NETNS": "/run/netns/gone"}).silent()
		n.call("DEL", c, of("c2", "net2"), nothingKnown).silent()
		n.call("GC", c.with(conf{validKey: valid()}), noAttachment).silent()
		n.same(before)
		nstest.Bridge(t, n.host, "br0", bridgeMAC)
		again := n.call("ADD", c).ok()
		n.call("CHECK", c.with(again.prev())).silent()
	})
}

// A pod's namespace goes first, with all that was in it, and the bridge that nobody
// has pinned is what it was.
func TestNamespaceGoesFirst(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, mode string) {
		n := newNode(t, conf{"mode": mode, "bridge": "br1"}, libvirt)
		n.sh(n.host, nil, "ip link add br1 mtu 9000 type bridge\nip link set br1 up")
		before := n.links(n.host)["br1"]
		t.Run("pod", func(t *testing.T) {
			pod := nstest.New(t)
			n.call("ADD", n.conf(), env{"CNI_NETNS": pod.Path}).ok()
		})
		n.call("DEL", n.conf(), env{"CNI_NETNS": "/run/netns/gone"}).silent()
		if after := n.links(n.host)["br1"]; after.Address != before.Address || after.MTU != before.MTU {
			t.Errorf("the bridge was %s with MTU %d, is %s with %d", before.Address, before.MTU, after.Address, after.MTU)
		}
		if names := n.names(n.host); len(names) != 5 { // lo, two bridges, the uplink and its other end
			t.Errorf("left are %q", names)
		}
	})
}

// An entry that has followed a guest's frame to the uplink stays there when the pod's
// namespace takes the port with it: nobody knows its MAC any more. The next ADD names
// it, and works when it is gone (docs/reliability.md).
func TestMovedEntryOutlivesThePort(t *testing.T) {
	t.Parallel()
	for _, fdb := range []string{"static", "roaming"} {
		n := newNode(t, conf{"mac": guestMAC, "fdb": fdb}, libvirt)
		t.Run(fdb, func(t *testing.T) {
			pod := nstest.New(t)
			n.call("ADD", n.conf(), env{"CNI_NETNS": pod.Path}).ok()
			guest, err := net.ParseMAC(guestMAC)
			if err != nil {
				t.Fatal(err)
			}
			out := nstest.OpenLink(t, n.host, "switch")
			defer out.Close()
			out.Send(nstest.Frame(net.HardwareAddr{255, 255, 255, 255, 255, 255}, guest, 60, "moved"))
			n.host.Run(t, "sh", "-ec", "for i in $(seq 100); do bridge fdb show dev uplink | grep -q "+guestMAC+" && exit; sleep 0.05; done; exit 1")
		})
		n.host.Run(t, "sh", "-ec", "for i in $(seq 200); do ip -o link show master br0 | grep -q ': tb' || exit 0; sleep 0.05; done; exit 1")
		n.call("DEL", n.conf(), env{"CNI_NETNS": "/run/netns/gone"}).silent()
		n.call("ADD", n.conf()).fails(11, guestMAC, `"uplink" on bridge "br0" has a static entry for it`)
		n.sh(n.host, nil, "bridge fdb del "+guestMAC+" dev uplink master")
		n.call("ADD", n.conf()).ok()
	}
}
