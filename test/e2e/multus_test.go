package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
)

// writeClusterNetworks makes "vms" the network that every pod gets.
func (n *node) writeClusterNetworks() {
	n.t.Helper()
	n.writeNetwork("cluster/vms", n.vms())
	n.writeMultus("vms.conflist")
}

// writeMultus makes thin Multus the runtime's only network. It gives every pod that of a file.
func (n *node) writeMultus(file string) {
	n.t.Helper()
	n.write(asJSON(n.t, conf{
		"cniVersion": n.version, "name": "multus", "type": "multus",
		"kubeconfig":     n.kubeconfig(),
		"clusterNetwork": n.path("networks", "cluster", file),
		"cniDir":         n.path("multus"), "binDir": n.path("plugins"), "confDir": n.path("networks", "cluster"),
		"logFile": n.path("multus.log"), "logLevel": "verbose",
	}), "networks", "vms", "00-multus.conf")
	n.t.Cleanup(func() { showLog(n.t, n.path("multus.log")) })
}

// defineNetworks makes the NetworkAttachmentDefinitions that pods ask for by annotation.
func (c *cluster) defineNetworks() {
	c.t.Helper()
	crd, err := testdata.ReadFile("testdata/nad.yaml")
	must(c.t, err)
	must(c.t, c.api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd, nil))
	for name, network := range map[string]conf{
		"second": c.network("second", guarded, c.pool("10.213.0.200", "10.213.0.249")),
		"plain":  c.plain(),
	} {
		c.define(name, network)
	}
}

func (c *cluster) define(name string, network conf) {
	c.t.Helper()
	definition := conf{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": conf{"name": name},
		"spec": conf{"config": string(asJSON(c.t, network))},
	}
	eventually(c.t, "network "+name+" is defined", func() error { // the API knows the kind a moment after its definition
		return c.api("POST", "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions", definition, nil)
	})
}

// clusterPod is a pod as the API shows it.
type clusterPod struct {
	*cluster
	url      string // in the API
	Metadata struct {
		Name, UID   string
		Annotations map[string]string
	}
	Status struct {
		Phase, PodIP string
	}
}

// start makes a pod with annotations and waits until it runs.
func (c *cluster) start(name string, annotations map[string]string, containers ...conf) *clusterPod {
	c.t.Helper()
	return c.launch("default", conf{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": conf{"name": name, "annotations": annotations},
		"spec": conf{
			"nodeName": "node1", "containers": containers, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
			"volumes": []conf{{"name": "tun", "hostPath": conf{"path": tunDevice, "type": "CharDevice"}}},
		},
	})
}

// launch makes a pod in a namespace and waits until it runs.
func (c *cluster) launch(namespace string, pod any) *clusterPod {
	c.t.Helper()
	p := &clusterPod{cluster: c}
	pods := "/api/v1/namespaces/" + namespace + "/pods"
	must(c.t, c.api("POST", pods, pod, p))
	p.url = pods + "/" + p.Metadata.Name
	eventually(c.t, "pod "+p.Metadata.Name+" runs", func() error {
		if err := c.api("GET", p.url, nil, p); err != nil {
			return err
		}
		if p.Status.Phase != "Running" || p.Status.PodIP == "" {
			return fmt.Errorf("it is %+v", p.Status)
		}
		return nil
	})
	return p
}

// delete removes the pod and waits until nothing is left of it in the API; kubelet holds it there until the runtime has stopped it.
func (p *clusterPod) delete() {
	p.t.Helper()
	must(p.t, p.api("DELETE", p.url, nil, nil))
	eventually(p.t, "pod "+p.Metadata.Name+" is gone", func() error {
		err := p.api("GET", p.url, nil, nil)
		var status *statusError
		if errors.As(err, &status) && status.code == http.StatusNotFound {
			return nil
		}
		return fmt.Errorf("it is still there: %w", err)
	})
}

// peerAs is a container with peer, run as a user and group of that number, without capabilities.
func peerAs(name string, id int, args ...string) conf {
	return conf{
		"name": name, "image": image, "imagePullPolicy": "Never", "args": args,
		"securityContext": conf{"runAsUser": id, "runAsGroup": id, "allowPrivilegeEscalation": false, "capabilities": conf{"drop": []string{"ALL"}}},
		"volumeMounts":    []conf{{"name": "tun", "mountPath": "/dev/net/tun"}},
	}
}

// networks is what Multus says of the pod's networks.
func (p *clusterPod) networks() (networks []networkStatus) {
	p.t.Helper()
	text := p.Metadata.Annotations["k8s.v1.cni.cncf.io/network-status"]
	p.t.Logf("network-status: %s", text)
	must(p.t, json.Unmarshal([]byte(text), &networks))
	return networks
}

type networkStatus struct {
	Name, Interface, MAC string
	IPs                  []string
	MTU                  int
	Default              bool
}

// Multus 4.3 reduces the configuration of a cluster network in DEL to what every network has, because that is a conflist.
func TestMultusReducesDEL(t *testing.T) {
	c := newCluster(t)
	p := c.start("vm", nil, peerAs("peer", 107, "pause"))
	p.requireNetworks("eth0")
	p.delete()
	for _, del := range c.succeeded(0, "DEL") {
		if del.given(t)["bridge"] != nil {
			t.Errorf("%s was given %s: Multus reduces it no more, drop this test", del, del.stdin)
		}
	}
	c.cleanNetwork() // without the delegate's own keys nobody can give the address back
}

// tapbridge as the second network of a pod, with the MAC that the pod's annotation asks for.
func TestSecondNetworkWithMAC(t *testing.T) {
	const guest = "52:54:00:11:22:33"
	c := newCluster(t)
	p := c.start("vm", map[string]string{
		"v1.multus-cni.io/default-network": "default/plain",
		"k8s.v1.cni.cncf.io/networks":      `[{"name":"second","mac":"` + guest + `"}]`,
	}, peerAs("peer", 107, "pause"))
	networks := p.networks()
	if len(networks) != 2 {
		t.Fatalf("%d networks, want 2: the tap is none", len(networks))
	}
	if second := networks[1]; second.Name != "default/second" || second.Interface != "net1" || second.MAC != guest || len(second.IPs) != 1 {
		t.Errorf("second network: %+v", second)
	}
	p.delete()
	if adds, dels := c.succeeded(0, "ADD"), c.succeeded(0, "DEL"); len(adds) != 2 || len(dels) < 2 {
		t.Errorf("%d calls of ADD and %d of DEL, want two each at least", len(adds), len(dels))
	}
	c.clean()
}
