package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/test/deploy"
)

// The agent that the DaemonSet starts repairs both sides of a pod's port, in its container, with the capabilities of the manifest:
// NET_BROADCAST, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN.
func TestAgentInItsContainer(t *testing.T) {
	c := newCluster(t)
	c.loadImage()
	namespaces := c.path("runtime/state/io.containerd.grpc.v1.cri/netns")
	c.run("sh", "-ec", `
mkdir -p "$1"
mount --bind "$1" "$1"
mount --make-shared "$1"
mkdir /run/containerd
mount --bind /run/containerd /run/containerd
mount --make-shared /run/containerd # as systemd makes all mounts
touch /run/containerd/containerd.sock
mount --bind "$0" /run/containerd/containerd.sock`, c.socket(), namespaces)
	pod, err := deploy.Pod(root, deploy.Agent, "node1", map[string]string{"plugins": c.path("plugins"), "netns": namespaces})
	must(t, err)
	pod.Spec.Containers[1].Args = append(pod.Spec.Containers[1].Args, "-interval=1h") // what is not heard is not repaired
	c.pristine = nstest.World(c.net)
	agent := c.launch(pod.Namespace, pod)
	eventually(t, "the agent is ready", func() error { return agent.allReady() })
	agent.requireConfined("agent", "0000000000283800", "/run/tapbridge.lock")

	p := c.start("vm", nil, peerAs("peer", libvirtUser, "hold", "tap0"))
	sandbox := p.sandbox()
	end := c.ports()[0]
	c.spoil("bridge", "link", "set", "dev", end, "learning", "on", "locked", "off")
	sandbox.inside("ip", "link", "set", "tap0", "mtu", "1300")
	sandbox.inside("tc", "qdisc", "del", "dev", "tap0", "ingress")
	sandbox.inside("sysctl", "-w", "net.ipv6.conf.tap0.disable_ipv6=0")
	c.awaitRight()
	p.delete()
	agent.delete()
	c.cleanNetwork()
}

func (p *clusterPod) allReady() error {
	var now core.Pod
	if err := p.api("GET", p.url, nil, &now); err != nil {
		return err
	}
	for _, s := range now.Status.ContainerStatuses {
		if !s.Ready {
			return fmt.Errorf("container %s: %+v", s.Name, s.State)
		}
	}
	return nil
}

// spoil is for what is done to a port behind the plugin's back.
func (n *node) spoil(command string, args ...string) {
	n.t.Helper()
	n.run(command, args...)
	if _, err := output(n.command(n.path("plugins", "tapbridge.real"), "ports")); err == nil {
		n.t.Logf("%s %q was repaired at once", command, args)
	}
}

// awaitRight waits until all ports are as they should be.
func (n *node) awaitRight() {
	n.t.Helper()
	eventually(n.t, "all ports are right", func() error {
		_, err := output(n.command(n.path("plugins", "tapbridge.real"), "ports"))
		return err
	})
}

// hostTaps makes the pods' network one whose port does not go with a pod's namespace.
func (n *node) hostTaps() {
	n.t.Helper()
	n.writeNetworks()
	n.writeNetwork("vms/10-vms", n.network("vms", guarded, conf{"mode": "host-tap"}, n.pool("10.213.0.10", "10.213.0.99")))
}

// agent starts the agent on the node itself.
func (r *runtime) agent(args ...string) *daemon {
	r.t.Helper()
	path, err := filepath.Abs(tool.Agent)
	must(r.t, err)
	return r.node.daemon("agent", r.command(path, append([]string{"-interval", "1s", "-runtime-endpoint", "unix://" + r.socket(), "-sweep-after", "3s"}, args...)...))
}

// A port whose DEL was lost is swept when containerd no longer knows its sandbox. Those of other sandboxes stay, also while containerd
// is dead.
func TestSweepOfLostDEL(t *testing.T) {
	k := containerd2
	k.networks = (*node).hostTaps
	r := newRuntime(t, k)
	gone, stays := r.pod("gone", ""), r.pod("stays", "")
	if n := len(r.taps()); n != 2 {
		t.Fatalf("%d ports, want 2", n)
	}
	plugin := r.path("plugins", "tapbridge")
	must(t, os.Rename(plugin, plugin+".kept"))
	must(t, os.WriteFile(plugin, []byte("#!/bin/sh\n"), 0o755)) // says that it has done what it was told
	gone.stop()
	gone.remove()
	must(t, os.Rename(plugin+".kept", plugin))
	if n := len(r.taps()); n != 2 {
		t.Fatalf("%d ports are left without DEL, want both", n)
	}
	r.agent()
	eventually(t, "one port is swept", func() error {
		if n := len(r.taps()); n != 1 {
			return fmt.Errorf("there are %d ports", n)
		}
		return nil
	})
	r.daemon.kill()
	time.Sleep(6 * time.Second) // twice the grace period, without anybody to ask
	r.start()
	r.ready()
	time.Sleep(6 * time.Second) // and with an answer
	if n := len(r.taps()); n != 1 {
		t.Errorf("%d ports are left, want that of the pod that lives", n)
	}
	stays.stop()
	stays.remove()
	r.cleanNetwork()
}

// taps are the ports of mode host-tap.
func (n *node) taps() (names []string) {
	n.t.Helper()
	for line := range strings.Lines(n.run("ip", "-br", "link", "show", "type", "tun")) {
		if name, _, _ := strings.Cut(line, " "); strings.HasPrefix(name, "tb") {
			names = append(names, name)
		}
	}
	return names
}
