package e2e

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/test/deploy"
)

const root = "../.."

// A cluster that has another network gets tapbridge from deploy/: the API accepts the manifests, the DaemonSet's container installs
// the plugin, and pods get the networks of deploy/networks by what it has installed.
func TestDeployment(t *testing.T) {
	c := newClusterWith(t, (*node).writeOtherNetwork)
	c.defineForeignKinds()
	for _, part := range append([]string{deploy.Base, deploy.Agent}, deploy.Components...) {
		for _, o := range c.build(part) {
			must(t, c.apply(o, "&dryRun=All"))
		}
	}
	c.requireManual()
	c.requireStrictness()
	for _, o := range c.build("networks") {
		must(t, c.apply(o, ""))
	}

	installer := c.runInstaller()
	c.pristine = nstest.World(c.net) // with the installer's pod
	const guest, address = "52:54:00:11:22:33", "10.213.0.150"
	p := c.start("vm", map[string]string{"k8s.v1.cni.cncf.io/networks": string(asJSON(t, []conf{
		{"name": "vms", "mac": guest},
		{"name": "containers", "ips": []string{address + "/24"}},
	}))}, peerAs("peer", libvirtUser, "hold", "tap1"))
	p.requireNetworks("eth0", "net1", "net2")
	if networks := p.networks(); networks[1].MAC != guest || len(networks[2].IPs) != 1 || networks[2].IPs[0] != address {
		t.Errorf("want MAC %s at the first and address %s at the second network: %+v", guest, address, networks)
	}
	c.run(c.path("plugins", "tapbridge"), "ports") // fails if one is not as it should be
	p.delete()
	c.cleanNetwork()
	installer.delete()
	c.requireInstalled()
}

// requireManual demands that the API would take what the manual shows. Who installs Kata gets the class of its pods.
func (c *cluster) requireManual() {
	c.t.Helper()
	class := conf{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": conf{"name": "kata"}, "handler": "kata"}
	must(c.t, c.api("POST", "/apis/node.k8s.io/v1/runtimeclasses", class, nil))
	objects, err := deploy.Manual(root)
	must(c.t, err)
	for _, o := range objects {
		if o.Kind != "" {
			must(c.t, c.apply(o, "&dryRun=All"))
		}
	}
}

// writeOtherNetwork makes a network of the reference plugins the cluster's own. It is no list: of one Multus would leave nothing to
// the plugins of DEL.
func (n *node) writeOtherNetwork() {
	n.t.Helper()
	pool := conf{"type": "host-local", "dataDir": n.path("pools"), "ranges": []any{[]conf{{"subnet": "10.215.0.0/24"}}}}
	n.write(asJSON(n.t, conf{"cniVersion": n.version, "name": "other", "type": "ptp", "ipam": pool}), "networks", "cluster", "other.conf")
	n.writeMultus("other.conf")
}

// foreign are the kinds of KubeVirt, of kubernetes-nmstate and of the Prometheus operator. The API is only told that they exist, with any content. So that it
// accepts an object proves that group, version, kind and name are good, and that the text is; what the keys of the object mean is
// proved by the types of those who define them (package deploy), and what their webhooks would say by nobody here.
var foreign = []struct{ group, version, kind, plural, scope string }{
	{"kubevirt.io", "v1", "KubeVirt", "kubevirts", "Namespaced"},
	{"kubevirt.io", "v1", "VirtualMachine", "virtualmachines", "Namespaced"},
	{"nmstate.io", "v1", "NodeNetworkConfigurationPolicy", "nodenetworkconfigurationpolicies", "Cluster"},
	{"monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules", "Namespaced"},
}

func (c *cluster) defineForeignKinds() {
	c.t.Helper()
	for _, f := range foreign {
		anything := conf{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
		must(c.t, c.api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", conf{
			"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": conf{"name": f.plural + "." + f.group},
			"spec": conf{
				"group": f.group, "scope": f.scope, "names": conf{"plural": f.plural, "singular": strings.ToLower(f.kind), "kind": f.kind},
				"versions": []conf{{"name": f.version, "served": true, "storage": true, "schema": conf{"openAPIV3Schema": anything}}},
			},
		}, nil))
	}
	must(c.t, c.api("POST", "/api/v1/namespaces", conf{"apiVersion": "v1", "kind": "Namespace", "metadata": conf{"name": "kubevirt"}}, nil))
}

func (c *cluster) build(part string) []deploy.Object {
	c.t.Helper()
	objects, err := deploy.Build(root, part)
	must(c.t, err)
	return objects
}

// apply sends an object as `kubectl apply --server-side` does.
func (c *cluster) apply(o deploy.Object, options string) (err error) {
	c.t.Helper()
	var path string
	eventually(c.t, "the API knows "+o.Kind, func() error {
		path, err = c.pathOf(o)
		return err
	})
	if err = c.api("PATCH", path+"?fieldManager=e2e&fieldValidation=Strict"+options, applied(o.YAML), nil); err != nil {
		err = fmt.Errorf("%s %q: %w", o.Kind, o.Name, err)
	}
	return err
}

// pathOf is where the API has an object, by its own list of kinds.
func (c *cluster) pathOf(o deploy.Object) (string, error) {
	var kinds struct {
		Resources []struct {
			Name, Kind string
			Namespaced bool
		}
	}
	path := "/apis/" + o.APIVersion
	if o.APIVersion == "v1" {
		path = "/api/v1"
	}
	if err := c.api("GET", path, nil, &kinds); err != nil {
		return "", err
	}
	for _, r := range kinds.Resources {
		if r.Kind != o.Kind || strings.Contains(r.Name, "/") {
			continue
		}
		if r.Namespaced {
			path += "/namespaces/" + cmp.Or(o.Namespace, "default")
		}
		return path + "/" + r.Name + "/" + o.Name, nil
	}
	return "", fmt.Errorf("no kind %s in %s", o.Kind, o.APIVersion)
}

// requireStrictness demands that the API would have refused a manifest with a mistake.
func (c *cluster) requireStrictness() {
	c.t.Helper()
	o := c.build(deploy.Base)[0]
	o.YAML = []byte(strings.Replace(string(o.YAML), "allowPrivilegeEscalation", "allowPrivilegeEscalations", 1))
	err := c.apply(o, "&dryRun=All")
	var status *statusError
	if !errors.As(err, &status) || status.code < http.StatusBadRequest {
		c.t.Errorf("with a mistyped key: %v, want a refusal", err)
	}
}

// runInstaller loads the image and runs what the DaemonSet would, on a node without the plugin.
func (c *cluster) runInstaller() *clusterPod {
	c.t.Helper()
	for _, name := range []string{"tapbridge", "tapbridge.real"} {
		must(c.t, os.Remove(c.path("plugins", name)))
	}
	c.loadImage()
	pod, err := deploy.Pod(root, deploy.Base, "node1", map[string]string{"plugins": c.path("plugins")})
	must(c.t, err)
	p := c.launch(pod.Namespace, pod)
	eventually(c.t, "the plugin is installed", func() error {
		_, err := os.Stat(c.path("plugins", "tapbridge")) // in one step, so whole
		return err
	})
	c.requireInstalled()
	p.requireConfined("install", none, pod.Spec.Containers[0].VolumeMounts[0].MountPath)
	return p
}

func (c *cluster) loadImage() {
	c.t.Helper()
	archive, err := filepath.Abs(tool.Image)
	must(c.t, err)
	c.run(filepath.Join(tool.Bin, "ctr"), "-a", c.socket(), "-n", "k8s.io", "images", "import", archive)
}

// requireInstalled demands that the runtime's folder has what was built.
func (c *cluster) requireInstalled() {
	c.t.Helper()
	want, got := digest(c.t, tool.Plugin), digest(c.t, c.path("plugins", "tapbridge"))
	if c.t.Logf("the node's plugin has sha256 %s", got); got != want {
		c.t.Errorf("the built one has %s", want)
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	return fmt.Sprintf("%x", sha256.Sum256(content))
}

// none is the set of no capability, as the kernel writes it.
const none = "0000000000000000"

// requireConfined demands that the kernel holds a container to what the manifest says: root with those capabilities and without a way
// to others, filtered system calls, a root that it cannot write to, and a file or folder that it can.
func (p *clusterPod) requireConfined(container, capabilities, folder string) {
	p.t.Helper()
	answer, err := p.ContainerStatus(patient(p.t), &cri.ContainerStatusRequest{ContainerId: p.container(container), Verbose: true})
	must(p.t, err)
	process := "/proc/" + pidIn(p.t, answer.Info)
	status := p.run("cat", process+"/status")
	for _, want := range []string{"Uid:\t0\t", "CapPrm:\t" + capabilities, "CapBnd:\t" + capabilities, "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, "\n"+want) {
			p.t.Errorf("the process of %s has no %q:\n%s", container, want, status)
		}
	}
	mounts := map[string]string{} // the options of each
	for line := range strings.Lines(p.run("cat", process+"/mountinfo")) {
		fields := strings.Fields(line) // proc_pid_mountinfo(5)
		mounts[fields[4]] = fields[5]
	}
	if !strings.HasPrefix(mounts["/"], "ro") || !strings.HasPrefix(mounts[folder], "rw") {
		p.t.Errorf("its root is %q, want ro; %s is %q, want rw", mounts["/"], folder, mounts[folder])
	}
}
