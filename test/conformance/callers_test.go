package conformance

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// These are habits of real callers, each as it was seen on the wire.

// containerd sends DEL with everything, then once or twice more with an empty
// CNI_NETNS and no prevResult.
func TestContainerdStopsTwice(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.unchanged(func() {
			added := n.call("ADD", n.conf(libvirt, recording)).ok()
			n.call("DEL", n.conf(libvirt, recording, added.prev())).silent()
			n.call("DEL", n.conf(libvirt, recording), env{"CNI_NETNS": ""}).silent()
			n.call("DEL", n.conf(libvirt, recording), env{"CNI_NETNS": ""}).silent()
		})
	})
}

// With an empty CNI_NETNS and no prevResult, while the pod's namespace lives,
// the devices in the pod go too: the tap has no other end to go with.
func TestDELReachesThePodWithoutItsPath(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.unchanged(func() {
			for name, c := range kinds {
				n.call("ADD", n.conf(c)).ok()
				n.call("DEL", n.conf(c), env{"CNI_NETNS": ""}).silent()
				n.empty()
				t.Log(name)
			}
		})
	})
}

// Multus 4.3.0 reduces the configuration of a cluster network that is a
// conflist, so the delegate has nothing to go by.
func TestMultusReducesTheConfiguration(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.unchanged(func() {
			for _, version := range []any{nil, "0.3.1", "1.0.0", newest} {
				added := n.call("ADD", n.conf(libvirt, hostLocal(t))).ok()
				reduced := conf{
					"cniVersion": version, "name": "lan", "type": "tapbridge",
					"capabilities": conf{"mac": true}, "ipam": conf{"type": "host-local"}, "dns": conf{},
				}.with()
				n.call("DEL", reduced).silent()
				n.call("DEL", reduced.with(conf{"ipam": nil})).silent()
				if version == newest {
					n.call("DEL", reduced.with(added.prev())).silent()
				}
			}
		})
	})
}

// It reduces the configuration of such a network for STATUS as well. That a bridge
// is missing would then be news about Multus, not about the node. What is not
// reduced but lacks a bridge is refused.
func TestMultusReducesTheConfigurationOfSTATUS(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		reduced := conf{
			"cniVersion": newest, "name": "lan", "type": "tapbridge",
			"capabilities": conf{"mac": true}, "ipam": conf{"type": "host-local"}, "dns": conf{},
		}
		n.call("STATUS", reduced, noAttachment).silent()
		n.call("STATUS", reduced.with(conf{"mode": n.mode()}), noAttachment).fails(anyCode, "bridge")
		n.call("STATUS", reduced.with(conf{"brigde": "br0"}), noAttachment).fails(2, "brigde")
	})
}

// podman asks VERSION with variables that mean nothing.
func TestPodmanAsksVERSION(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	dummy := env{"CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_CONTAINERID": "dummy", "CNI_PATH": "dummy", "CNI_ARGS": ""}
	want := spoken{"0.4.0", versions}
	if diff := cmp.Diff(want, n.call("VERSION", conf{"cniVersion": "0.4.0"}, dummy).spoken()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	n.call("VERSION", "", dummy, env{"CNI_IFNAME": "", "CNI_NETNS": "/nowhere"}).spoken()
}

// podman network reload is DEL, then ADD into the same namespace with the same
// address and MAC in CNI_ARGS.
func TestPodmanReloads(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		c := n.conf(libvirt, hostLocal(t))
		args := env{"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.9.0.7;MAC=" + guestMAC}
		first := n.call("ADD", c, args).ok()
		before := n.world()
		for range 3 {
			n.call("DEL", c.with(first.prev()), args).silent()
			again := n.call("ADD", c, args).ok()
			if diff := cmp.Diff(first.stdout, again.stdout); diff != "" {
				t.Errorf("result (-first +again):\n%s", diff)
			}
		}
		n.same(before)
	})
}

// CRI-O sends GC with both keys, null when there are no attachments.
func TestCRIOCollects(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		before := n.world()
		added := n.call("ADD", n.conf(libvirt)).ok()
		both := func(list any) conf { return conf{validKey: list, oldKey: list} }
		n.call("GC", n.conf(libvirt, both(valid("c1", "net1"))), noAttachment).silent()
		n.call("CHECK", n.conf(libvirt, added.prev())).silent()
		n.call("GC", n.conf(libvirt, both(json.RawMessage("null"))), noAttachment).silent()
		n.same(before)
	})
}

// CRI-O asks CHECK of every living pod again when it has restarted.
func TestCRIOChecksAgain(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		added := n.call("ADD", n.conf(libvirt, hostLocal(t))).ok()
		for range 3 {
			n.call("CHECK", n.conf(libvirt, added.prev())).silent()
		}
	})
}

// containerd sends CNI_ARGS in random order, Multus sends keys twice.
func TestArgsInAnyOrder(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for _, args := range []string{
			"IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=web;MAC=" + guestMAC,
			"MAC=" + guestMAC + ";K8S_POD_NAME=web;K8S_POD_NAMESPACE=a;IgnoreUnknown=1",
			"K8S_POD_NAME=web;K8S_POD_NAME=web;MAC=" + guestMAC + ";IgnoreUnknown=true;IgnoreUnknown=1;K8S_POD_UID=u;MAC=" + guestMAC,
			"K8S_POD_UID=;MAC=" + guestMAC + ";IgnoreUnknown=true",
		} {
			for _, c := range []conf{recording, hostLocal(t)} {
				if got := n.call("ADD", n.conf(c), env{"CNI_ARGS": args}).result().nic().MAC; got != guestMAC {
					t.Errorf("%q: MAC %s", args, got)
				}
				n.call("DEL", n.conf(c), env{"CNI_ARGS": args}).silent()
			}
		}
	})
}

// containerd with several networks adds them to a pod at the same time.
func TestContainerdAddsInParallel(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		names := []string{"eth0", "eth1", "eth2"}
		n.unchanged(func() {
			for range 5 {
				n.allAtOnce("ADD", names)
				n.allAtOnce("DEL", names)
			}
		})
	})
}

// allAtOnce calls a verb for several interfaces of the container.
func (n *node) allAtOnce(verb string, names []string) {
	n.t.Helper()
	answers := make([]answer, len(names))
	var done sync.WaitGroup
	for i, name := range names {
		c := n.prepare(verb, n.conf(libvirt), env{"CNI_IFNAME": name})
		done.Go(func() { answers[i] = c.run() })
	}
	done.Wait()
	for _, a := range answers {
		a.ok()
	}
}

// A kubelet's deadline kills ADD half-way, then DEL comes. It must find whatever
// there is, however young; with the path of the namespace and without.
func TestKilledADD(t *testing.T) {
	tracer := strace(t)
	eachMode(t, func(t *testing.T, n *node) {
		before, paths, killed := n.world(), []string{n.pod.Path, ""}, 0
		for call, last := range map[string]int{"sendto": 32, "ioctl": 8} {
			for nth := 1; nth <= last; nth += 2 {
				if a, _ := n.prepare("ADD", n.conf(libvirt)).struck(tracer, call, "signal=SIGKILL", nth); a.code != 0 {
					killed++
				}
				n.call("DEL", n.conf(libvirt), env{"CNI_NETNS": paths[nth/2%2]}).silent()
				n.empty()
			}
		}
		t.Logf("%d ADDs were killed", killed)
		if n.same(before); killed < 5 {
			t.Errorf("only %d ADDs were killed", killed)
		}
	})
}

// containerd 2 asks STATUS on every poll and never ends a plugin that hangs.
func TestSTATUSIsBounded(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ipam.on("STATUS", behaviour{Delay: time.Hour})
	start := time.Now()
	n.call("STATUS", n.conf(recording), noAttachment).fails(anyCode)
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("STATUS took %v", took)
	}
}
