package conformance

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// STATUS with a cniVersion before 1.1.0 is E(1).
func Test73STATUSNeedsVersion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, version := range versions[:len(versions)-1] {
		n.call("STATUS", n.conf(conf{"cniVersion": version}), noAttachment).fails(1)
	}
}

// On a healthy node STATUS succeeds without a word.
func Test74Healthy(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for name, c := range kinds {
			t.Log(name)
			n.call("STATUS", n.conf(c), noAttachment).silent()
		}
		n.call("STATUS", n.conf(conf{"bridge": "br9", "createBridge": true}), noAttachment).silent()
	})
}

// No bridge, something else in its place, or an unusable /dev/net/tun is E(50).
// (VLANs on a bridge that has none: TestVLANsNeedAVLANAwareBridge.)
func Test75NotAvailable(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.call("STATUS", n.conf(conf{"bridge": "br9"}), noAttachment).fails(50, "br9")
		n.call("STATUS", n.conf(conf{"bridge": "uplink"}), noAttachment).fails(50, "uplink")
		n.call("STATUS", n.conf(conf{"bridge": "uplink", "createBridge": true}), noAttachment).fails(50, "uplink")
		for name, script := range map[string]string{
			"missing":      "mount -t tmpfs none /dev/net",
			"plain file":   "mount -t tmpfs none /dev/net; : > /dev/net/tun",
			"other device": "mount --bind /dev/null /dev/net/tun",
			"forbidden":    "mount -o nodev -t tmpfs none /dev/net; mknod /dev/net/tun c 10 200",
		} {
			a := n.prepare("STATUS", n.conf(), noAttachment).masked(script).run()
			t.Log(name)
			if n.mode() == "veth" {
				a.silent() // it needs no tap
			} else if f := a.fails(50, "/dev/net/tun"); strings.Count(f.Msg, "modprobe tun") != 1 {
				t.Errorf("what to do is to be said once: %s", f.Msg)
			}
		}
	})
}

// Where ADD cannot write what it must, both say so, with the remedy; STATUS writes
// nothing to find out.
func TestReadOnlyFileSystems(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for mount, script := range readOnly {
			n.prepare("STATUS", n.conf(), noAttachment).masked(script).run().fails(50, "read-only file system: mount "+mount+" writable")
			n.unchanged(func() {
				n.prepare("ADD", n.conf()).masked(script).run().fails(50, "read-only file system: mount "+mount+" writable")
			})
		}
		run := t.TempDir()
		n.prepare("STATUS", n.conf(), noAttachment).masked("mount --bind " + run + " /run").run().silent()
		if left, err := os.ReadDir(run); err != nil || len(left) > 0 {
			t.Errorf("STATUS left %v, %v", left, err)
		}
		n.prepare("ADD", n.conf()).masked("mount --bind " + run + " /run").run().ok()
		n.prepare("STATUS", n.conf(), noAttachment).masked("mount --bind "+run+" /run; mount -o remount,bind,ro /run").run().fails(50, "mount /run writable")
	})
}

// A bridge that is down is E(51).
func Test76Limited(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.sh(n.host, nil, "ip link set br0 down")
		n.call("STATUS", n.conf(), noAttachment).fails(51, "br0")
		n.sh(n.host, nil, "ip link set br0 up")
		n.call("STATUS", n.conf(), noAttachment).silent()
	})
}

// STATUS is forwarded to IPAM, and its error is ours.
func Test77STATUSOfIPAM(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.call("STATUS", n.conf(recording), noAttachment).silent()
		n.sameInput("STATUS", n.conf(recording), noAttachment)
		for _, code := range []int{50, 51, 123} {
			n.ipam.on("STATUS", failure(code, "out of addresses"))
			n.call("STATUS", n.conf(recording), noAttachment).fails(code, "out of addresses")
		}
		n.call("STATUS", n.conf(conf{"ipam": conf{"type": "nobody"}}), noAttachment).fails(anyCode, "nobody")
		if verbs := slices.Compact(n.ipam.verbs()); !cmp.Equal(verbs, []string{"STATUS"}) {
			t.Errorf("calls of the delegate: %q", verbs)
		}
	})
}

// ADD and DEL do their work after a STATUS that has failed.
func Test78STATUSIsNoCondition(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.sh(n.host, nil, "ip link set br0 down")
		n.ipam.on("STATUS", failure(50, "out of addresses"))
		n.call("STATUS", n.conf(recording), noAttachment).fails(anyCode)
		n.unchanged(func() {
			added := n.call("ADD", n.conf(recording)).ok()
			n.call("CHECK", n.conf(recording, added.prev())).silent()
			n.call("DEL", n.conf(recording, added.prev())).silent()
		})
	})
}

// STATUS changes nothing, whatever it says.
func Test79STATUSChangesNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.call("ADD", n.conf(libvirt)).ok()
		n.quiet(func() {
			n.call("STATUS", n.conf(libvirt), noAttachment).silent()
			n.call("STATUS", n.conf(conf{"bridge": "br9", "createBridge": true}), noAttachment).silent()
			n.call("STATUS", n.conf(conf{"bridge": "br9"}), noAttachment).fails(50)
		})
	})
}
