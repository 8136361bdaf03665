package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What KubeVirt relies on (commit d923fdb8) with a binding whose domainAttachmentType is tap. It names the pod's interfaces by a hash
// and finds the tap by that name; the guest's MAC and MTU are those of the pod's interface; its launcher runs as user 107.
func TestKubeVirt(t *testing.T) {
	const (
		guestMAC = "52:54:00:44:55:66"
		card     = "37a8eec1ce1" // the first interface is pod37a8eec1ce1, its tap tap37a8eec1ce1
		queues   = "1b4605b0e20" // of a tap with several queues
		plugged  = "ad9d8fcd5a4" // one that is unplugged
	)
	c := newCluster(t)
	c.define("small", c.network("small", guarded, conf{"mtu": 1400}))
	c.define("queues", c.network("queues", guarded, conf{"multiQueue": true}))
	p := c.start("launcher", map[string]string{
		"v1.multus-cni.io/default-network": "default/plain",
		"k8s.v1.cni.cncf.io/networks": string(asJSON(t, []conf{
			{"name": "small", "interface": "pod" + card, "mac": guestMAC},
			{"name": "queues", "interface": "pod" + queues},
			{"name": "small", "interface": "pod" + plugged},
		})),
	}, peerAs("launcher", libvirtUser, "pause"), peerAs("stranger", libvirtUser+1, "pause"), peerAs("vmm", libvirtUser, "hold", "tap"+plugged))
	sandbox := p.sandbox()

	if nic := sandbox.nic("pod" + card); nic.MAC.String() != guestMAC || nic.MTU != 1400 {
		t.Errorf("KubeVirt would make a card with %+v, want MAC %s and MTU 1400", nic, guestMAC)
	}
	p.requireNetworks("eth0", "pod"+card, "pod"+queues, "pod"+plugged)
	launcher, stranger := p.container("launcher"), p.container("stranger")
	for _, open := range []struct {
		who  string
		args []string
		want string // in the error; "" for none
	}{
		{launcher, []string{"tap", "tap" + card}, ""},
		{stranger, []string{"tap", "tap" + card}, "operation not permitted"},
		{launcher, []string{"tap", "tap" + card, "multi"}, "invalid argument"},
		{launcher, []string{"tap", "tap" + queues}, "invalid argument"},
		{launcher, []string{"tap", "tap" + queues, "multi"}, ""},
		{launcher, []string{"tap", "tap" + plugged}, "device or resource busy"},
	} {
		_, err := c.exec(open.who, open.args...)
		if (err == nil) != (open.want == "") || err != nil && !strings.Contains(err.Error(), open.want) {
			t.Errorf("%q: %v, want %q", open.args, err, open.want)
		}
	}

	c.unplug("pod" + plugged)
	links := sandbox.inside("ip", "-br", "link")
	t.Logf("after hot-unplug:\n%s", links)
	if strings.Contains(links, plugged) || !strings.Contains(links, "tap"+card) || !strings.Contains(links, "tap"+queues) {
		t.Errorf("want %s gone, with its tap in use, and the others in place", plugged)
	}
	p.delete()
	c.succeeded(0, "DEL")
	c.clean()
}

// unplug sends the DEL that follows an earlier ADD, as Multus does when an interface is taken from a running pod.
func (n *node) unplug(ifName string) {
	n.t.Helper()
	calls := n.succeeded(0, "ADD")
	i := slices.IndexFunc(calls, func(c call) bool { return c.variable("CNI_IFNAME") == ifName })
	if i < 0 {
		n.t.Fatalf("no ADD of %s", ifName)
	}
	config := calls[i].given(n.t)
	config["prevResult"] = json.RawMessage(calls[i].stdout)
	cmd := n.command(n.path("plugins", "tapbridge.real"))
	cmd.Env = append(calls[i].env, "CNI_COMMAND=DEL")
	cmd.Stdin = strings.NewReader(string(asJSON(n.t, config)))
	said, err := output(cmd)
	if must(n.t, err); said != "" {
		n.t.Errorf("DEL says %s", said)
	}
}

// sandbox is the pod as the runtime knows it.
func (p *clusterPod) sandbox() *pod {
	p.t.Helper()
	selector := map[string]string{"io.kubernetes.pod.uid": p.Metadata.UID}
	answer, err := p.ListPodSandbox(patient(p.t), &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{LabelSelector: selector}})
	must(p.t, err)
	if len(answer.Items) != 1 {
		p.t.Fatalf("the runtime has %d pods like %v, want 1", len(answer.Items), selector)
	}
	return &pod{runtime: p.runtime, id: answer.Items[0].Id}
}

// container is the id of a container of the pod.
func (p *clusterPod) container(name string) string {
	p.t.Helper()
	selector := map[string]string{"io.kubernetes.pod.uid": p.Metadata.UID, "io.kubernetes.container.name": name}
	answer, err := p.ListContainers(patient(p.t), &cri.ListContainersRequest{Filter: &cri.ContainerFilter{LabelSelector: selector}})
	must(p.t, err)
	if len(answer.Containers) != 1 {
		p.t.Fatalf("the runtime has %d containers like %v, want 1", len(answer.Containers), selector)
	}
	return answer.Containers[0].Id
}

// requireNetworks demands that Multus reports these interfaces and no others: KubeVirt takes each for a network.
func (p *clusterPod) requireNetworks(interfaces ...string) {
	p.t.Helper()
	var got []string
	for _, network := range p.networks() {
		got = append(got, network.Interface)
	}
	if !slices.Equal(got, interfaces) {
		p.t.Errorf("the network status lists %q, want %q", got, interfaces)
	}
}
