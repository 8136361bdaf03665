package e2e

import (
	"maps"
	"slices"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

var (
	containerds = map[string]kind{"containerd 1.6": containerd16, "containerd 2": containerd2}
	runtimes    = map[string]kind{"containerd 1.6": containerd16, "containerd 2": containerd2, "CRI-O": crio}
)

// on runs a test with each runtime, on a node of its own.
func on(t *testing.T, kinds map[string]kind, test func(*runtime)) {
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		t.Run(name, func(t *testing.T) { test(newRuntime(t, kinds[name])) })
	}
}

// tapbridge can be the only network of a pod: its address is the guest's, and the pod itself is silent.
func TestOnlyNetworkOfAPod(t *testing.T) {
	on(t, runtimes, func(r *runtime) {
		p := r.pod("vm", "")
		if got := p.address(); got != "10.213.0.10" {
			r.t.Errorf("the pod's address is %q, want the first of the pool", got)
		}
		links := p.inside("ip", "-br", "addr")
		r.t.Logf("in the pod:\n%s", links)
		if !strings.Contains(links, "tap0") || !strings.Contains(links, "eth0") || strings.Contains(links, "10.213.") {
			r.t.Error("want eth0 and tap0, and no address: that is the guest's")
		}
		p.stop()
		p.remove()
		r.succeeded(0, "DEL")
		r.clean()
	})
}

// containerd sends DEL again at each further stop and at the removal, without the path of the namespace and without prevResult.
func TestContainerdRepeatsDEL(t *testing.T) {
	on(t, containerds, func(r *runtime) {
		p := r.pod("vm", "")
		p.stop()
		before := len(r.calls(0))
		r.clean()
		p.stop()
		p.remove()
		for _, c := range r.succeeded(before, "DEL") {
			if c.variable("CNI_NETNS") != "" || c.given(r.t)["prevResult"] != nil {
				r.t.Errorf("%s: want neither namespace nor prevResult", c)
			}
		}
	})
}

// CRI-O asks GC when it has started, CHECK after each ADD, and CHECK of each living pod when it has restarted.
func TestCRIOChecksAndCollects(t *testing.T) {
	r := newRuntime(t, crio)
	r.awaitCall(0, "GC")
	p := r.pod("vm", "")
	r.awaitCall(0, "CHECK")
	before := len(r.calls(0))
	r.restart()
	r.awaitCall(before, "CHECK")
	r.awaitCall(before, "GC")
	p.stop()
	p.remove()
	r.succeeded(0, "DEL")
	r.clean()
}

// A runtime that is killed knows its pods when it is back.
func TestRuntimeIsKilled(t *testing.T) {
	on(t, runtimes, func(r *runtime) {
		p := r.pod("vm", "")
		address := p.address()
		r.restart()
		if got := p.address(); got != address {
			r.t.Errorf("the pod's address was %q, now it is %q", address, got)
		}
		p.stop()
		p.remove()
		r.succeeded(0, "DEL")
		r.clean()
	})
}

// containerd adds all networks of a pod at once: two networks without Multus.
func TestContainerdAddsTwoNetworks(t *testing.T) {
	on(t, containerds, func(r *runtime) {
		p := r.pod("vm", "pair")
		links := p.inside("ip", "-br", "link")
		r.t.Logf("in the pod:\n%s", links)
		for _, name := range []string{"eth0", "tap0", "eth1", "tap1"} {
			if !strings.Contains(links, name) {
				r.t.Errorf("%s is missing", name)
			}
		}
		if adds := r.succeeded(0, "ADD"); len(adds) != 2 {
			r.t.Errorf("%d calls of ADD, want 2", len(adds))
		}
		p.stop()
		p.remove()
		r.succeeded(0, "DEL")
		r.clean()
	})
}

// What STATUS says is what kubelet says of the node. Of the runtimes here only containerd 2 always asks.
func TestSTATUSReachesKubelet(t *testing.T) {
	r := newRuntime(t, containerd2)
	for _, broken := range []struct{ by, want string }{
		{"ip link set br0 down", "ip link set br0 up"},
		{"ip link del br0", `bridge "br0": no such device in this network namespace: create it`},
	} {
		r.run("sh", "-c", broken.by)
		err := r.condition(cri.NetworkReady)
		t.Logf("after %q: %v", broken.by, err)
		if err == nil || !strings.Contains(err.Error(), broken.want) {
			t.Errorf("want %q in it", broken.want)
		}
	}
}

// What is wrong reaches whoever looks at the pod, in our words, and nothing remains of the attempt.
func TestADDFails(t *testing.T) {
	on(t, runtimes, func(r *runtime) {
		r.run("ip", "link", "del", "br0")
		r.pristine = nstest.World(r.net)
		_, err := r.RunPodSandbox(patient(r.t), &cri.RunPodSandboxRequest{Config: r.sandbox("vm")})
		r.t.Logf("the pod: %v", err)
		if want := `bridge "br0": no such device in this network namespace: create it`; err == nil || !strings.Contains(err.Error(), want) {
			r.t.Errorf("want %q in it", want)
		}
		r.awaitCall(0, "DEL")
		r.clean()
	})
}
