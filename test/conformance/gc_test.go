package conformance

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// valid is the list of attachments that a runtime knows, by container id and
// interface name in turns.
func valid(words ...string) []conf {
	list := []conf{}
	for pair := range slices.Chunk(words, 2) {
		list = append(list, conf{"containerID": pair[0], "ifname": pair[1]})
	}
	return list
}

const validKey, oldKey = "cni.dev/valid-attachments", "cni.dev/attachments"

// of are the variables of an attachment.
func of(id, ifname string) env { return env{"CNI_CONTAINERID": id, "CNI_IFNAME": ifname} }

// node verbs come without an attachment.
var noAttachment = env{"CNI_CONTAINERID": unset, "CNI_IFNAME": unset, "CNI_NETNS": unset}

// GC with a cniVersion before 1.1.0 is E(1).
func Test66GCNeedsVersion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.call("ADD", n.conf()).ok()
	n.unchanged(func() {
		for _, version := range versions[:len(versions)-1] {
			n.call("GC", n.conf(conf{"cniVersion": version, validKey: valid()}), noAttachment).fails(1)
		}
	})
}

// GC removes all of attachments that are not valid, and touches no others.
func Test67GCRemovesTheStale(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		second := nstest.New(t)
		kept := n.call("ADD", n.conf(libvirt), of("live", "net1")).ok()
		n.call("ADD", n.conf(libvirt), of("live", "net2")).ok()
		before := n.world(second)
		for mode, e := range map[string]env{
			"tap": of("stale", "net1"), "veth": of("live", "net3"), "host-tap": of("stale", "net4"),
		} {
			n.call("ADD", n.conf(libvirt, conf{"mode": mode}), e, env{"CNI_NETNS": second.Path}).ok()
		}
		list := valid("live", "net1", "live", "net2", "never-seen", "net1")
		n.call("GC", n.conf(libvirt, conf{validKey: list}), noAttachment).silent()
		n.same(before, second)
		n.call("CHECK", n.conf(libvirt, kept.prev()), of("live", "net1")).silent()
	})
}

// GC reads the list from both keys. An empty list or null means that none is
// valid; without the key nothing is removed.
func Test68GCKeys(t *testing.T) {
	null := json.RawMessage("null")
	for name, c := range map[string]struct {
		conf conf
		want []string // container ids of those that stay
	}{
		"valid":      {conf{validKey: valid("a", "net1")}, []string{"a"}},
		"old key":    {conf{oldKey: valid("a", "net1")}, []string{"a"}},
		"both":       {conf{validKey: valid("a", "net1"), oldKey: valid("a", "net1")}, []string{"a"}},
		"other name": {conf{validKey: valid("a", "net2")}, nil},
		"empty":      {conf{validKey: valid()}, nil},
		"null":       {conf{validKey: null}, nil},
		"old null":   {conf{oldKey: null}, nil},
		"both null":  {conf{validKey: null, oldKey: null}, nil},
		"absent":     {nil, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			ports := map[string]string{}
			for i, id := range []string{"a", "b"} {
				e := of(id, "net1")
				if i > 0 { // one pod cannot have the name twice
					e["CNI_NETNS"] = nstest.New(t).Path
				}
				ports[id] = n.call("ADD", n.conf(), e).result().port().Name
			}
			n.call("GC", n.conf(c.conf), noAttachment).silent()
			var stay []string
			for _, id := range []string{"a", "b"} {
				if slices.Contains(n.names(n.host), ports[id]) {
					stay = append(stay, id)
				}
			}
			if diff := cmp.Diff(c.want, stay); diff != "" {
				t.Errorf("attachments left (-want +got):\n%s", diff)
			}
		})
	}
}

// A list that cannot be read is an error, and nothing is removed.
func TestGCOfNonsense(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.call("ADD", n.conf()).ok()
	n.unchanged(func() {
		n.call("GC", n.conf(conf{validKey: "all"})).fails(7)
		n.call("GC", n.conf(conf{validKey: []int{1}})).fails(7)
		n.call("GC", n.conf(conf{oldKey: conf{}})).fails(7)
	})
}

// GC touches only the network of that name, and no device without a record.
func Test69GCOfOneNetwork(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	long := strings.Repeat("long", 100)
	n.call("ADD", n.conf(conf{"name": "other"}), of("c1", "net1")).ok()
	n.call("ADD", n.conf(conf{"name": long + "1"}), of("c2", "net2")).ok()
	n.sh(n.host, nil, "ip tuntap add tap5 mode tap\n ip link set tap5 master br0\n ip link add tb0123456789ab type bridge")
	n.sh(n.pod, nil, "ip tuntap add tap6 mode tap")
	before := n.world()
	for _, name := range []string{"lan", long + "2"} {
		n.call("ADD", n.conf(conf{"name": name}), of("c3", "net3")).ok()
		n.call("GC", n.conf(conf{"name": name, validKey: valid()}), noAttachment).silent()
	}
	n.call("GC", n.conf(conf{"name": "lan2", validKey: valid()}), noAttachment).silent()
	n.same(before)
}

// What cannot be removed does not keep the rest, and is reported: of two stale
// attachments one meets a fault, the other goes all the same, and so does the
// call of the delegate.
func Test70GCGoesOn(t *testing.T) {
	tracer := strace(t)
	eachMode(t, func(t *testing.T, n *node) {
		before, wentOn := n.world(), 0
		stale := n.conf(recording, conf{validKey: valid()})
		for nth := 2; nth < 26; nth++ {
			for _, name := range []string{"net1", "net2"} {
				n.call("ADD", n.conf(), of("stale", name)).ok()
			}
			a, hits := n.prepare("GC", stale, noAttachment).struck(tracer, "sendto", "error=EPERM", nth)
			left := strings.Count(n.host.Run(t, "ip", "link", "show", "master", "br0"), "alias tapbridge/1")
			if hits == 1 && left == 1 {
				wentOn++
				a.fails(anyCode, "operation not permitted")
				if !slices.Contains(n.ipam.verbs(), "GC") {
					t.Errorf("fault %d: the delegate was not called", nth)
				}
			}
			n.call("GC", stale, noAttachment).ok()
		}
		if n.same(before); wentOn == 0 {
			t.Error("no fault kept one attachment")
		}
	})
}

// GC is forwarded to IPAM, and its error is ours; ours is removed all the same.
func Test71GCOfIPAM(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		before := n.world()
		c := n.conf(recording, conf{validKey: valid()})
		n.call("ADD", n.conf()).ok()
		n.ipam.on("GC", failure(123, "disk is full"))
		n.call("GC", c, noAttachment).fails(123, "disk is full")
		n.sameInput("GC", c, noAttachment)
		n.same(before)
		n.call("GC", n.conf(recording), noAttachment).fails(123)
	})
}

// GC says nothing on success, and needs CNI_PATH.
func Test72GCNeedsPath(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.call("ADD", n.conf()).ok()
	c := n.conf(conf{validKey: valid()})
	n.unchanged(func() {
		n.call("GC", c, noAttachment, env{"CNI_PATH": unset}).fails(4, "CNI_PATH")
		n.call("GC", c, noAttachment, env{"CNI_PATH": ""}).fails(4, "CNI_PATH")
	})
	n.call("GC", c, noAttachment).silent()
}
