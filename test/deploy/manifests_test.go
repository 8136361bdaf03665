package deploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	nad "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirt "kubevirt.io/api/core/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/port"
)

const root = "../.."

// policy is the part of a NodeNetworkConfigurationPolicy, and of nmstate's own state in it, that the manifest uses.
type policy struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		NodeSelector map[string]string `json:"nodeSelector"`
		DesiredState struct {
			Interfaces []bridge `json:"interfaces"`
		} `json:"desiredState"`
	} `json:"spec"`
}

type bridge struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	State       string `json:"state"`
	CopyMACFrom string `json:"copy-mac-from"`
	IPv4        toggle `json:"ipv4"`
	IPv6        toggle `json:"ipv6"`
	Bridge      struct {
		Options struct {
			STP toggle `json:"stp"`
		} `json:"options"`
		Port []struct {
			Name string `json:"name"`
			VLAN vlans  `json:"vlan"`
		} `json:"port"`
	} `json:"bridge"`
}

type toggle struct {
	Enabled *bool `json:"enabled"` // nil: as it is
}

type vlans struct {
	Mode         string `json:"mode"`
	EnableNative bool   `json:"enable-native"`
	Tag          int    `json:"tag"`
	TrunkTags    []struct {
		IDRange struct {
			Min int `json:"min"`
			Max int `json:"max"`
		} `json:"id-range"`
	} `json:"trunk-tags"`
}

// cluster is every object of deploy/.
type cluster struct {
	daemonSet apps.DaemonSet
	networks  map[string]*config.Config
	kubeVirt  kubevirt.KubeVirt
	machine   kubevirt.VirtualMachine
	policy    policy
	agents    apps.DaemonSet // the same with the agent
	rule      rule
	dashboard core.ConfigMap
}

// rule is the part of the Prometheus operator's PrometheusRule that the manifest uses. What is below it is held to Prometheus' own
// words by promtool.
type rule struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            json.RawMessage `json:"spec"`
}

// read reads deploy/ into the types of those who define the kinds. A key that they do not know is an error.
func read(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{networks: map[string]*config.Config{}}
	for _, part := range append([]string{Base}, Components...) {
		objects, err := Build(root, part)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if err := c.add(o); err != nil {
				t.Errorf("%s %q in %s: %v", o.Kind, o.Name, part, err)
			}
		}
	}
	with, err := Build(root, Agent)
	if err == nil {
		err = strict(with[0].YAML, &c.agents)
	}
	if err != nil || len(with) != 1 {
		t.Errorf("with the agent there are %d objects: %v", len(with), err)
	}
	return c
}

func (c *cluster) add(o Object) error {
	switch o.APIVersion + " " + o.Kind {
	case "apps/v1 DaemonSet":
		return strict(o.YAML, &c.daemonSet)
	case "k8s.cni.cncf.io/v1 NetworkAttachmentDefinition":
		return c.addNetwork(o)
	case "kubevirt.io/v1 KubeVirt":
		return strict(o.YAML, &c.kubeVirt)
	case "kubevirt.io/v1 VirtualMachine":
		return strict(o.YAML, &c.machine)
	case "monitoring.coreos.com/v1 PrometheusRule":
		return strict(o.YAML, &c.rule)
	case "v1 ConfigMap":
		return strict(o.YAML, &c.dashboard)
	case "nmstate.io/v1 NodeNetworkConfigurationPolicy":
		return strict(o.YAML, &c.policy)
	}
	return fmt.Errorf("no test knows the kind %s of %s", o.Kind, o.APIVersion)
}

// strict reads as the API server does: it minds case, and refuses keys it does not know.
func strict(text []byte, into any) error {
	text, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	unknown, err := kjson.UnmarshalStrict(text, into)
	return errors.Join(append(unknown, err)...)
}

// addNetwork reads a network's configuration as the plugin does.
func (c *cluster) addNetwork(o Object) error {
	var d nad.NetworkAttachmentDefinition
	if err := strict(o.YAML, &d); err != nil {
		return err
	}
	var conf struct{ Name, Type string }
	if err := json.Unmarshal([]byte(d.Spec.Config), &conf); err != nil {
		return err
	}
	if conf.Type != "tapbridge" || conf.Name != o.Name {
		return fmt.Errorf("its configuration is of %+v", conf)
	}
	h, err := config.ParseHeader([]byte(d.Spec.Config))
	if err == nil {
		c.networks[o.Name], err = h.Parse("")
	}
	return err
}

// The container may do what copying a file into root's folder takes, and no more.
func TestLeastPrivileges(t *testing.T) {
	spec := read(t).daemonSet.Spec.Template.Spec
	yes, no, rootID := true, false, int64(0)
	want := core.PodSecurityContext{RunAsUser: &rootID, RunAsGroup: &rootID, SeccompProfile: &core.SeccompProfile{Type: core.SeccompProfileTypeRuntimeDefault}}
	if diff := cmp.Diff(&want, spec.SecurityContext); diff != "" {
		t.Errorf("the pod (-want +got):\n%s", diff)
	}
	if len(spec.InitContainers) != 0 || len(spec.Containers) != 1 {
		t.Fatalf("there are other containers")
	}
	container := spec.Containers[0]
	all := core.SecurityContext{AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &core.Capabilities{Drop: []core.Capability{"ALL"}}}
	if diff := cmp.Diff(&all, container.SecurityContext); diff != "" {
		t.Errorf("the container (-want +got):\n%s", diff)
	}
	folder := core.HostPathDirectory
	volumes := []core.Volume{{Name: "plugins", VolumeSource: core.VolumeSource{HostPath: &core.HostPathVolumeSource{Path: "/opt/cni/bin", Type: &folder}}}}
	if diff := cmp.Diff(volumes, spec.Volumes); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	if spec.HostNetwork || spec.HostPID || spec.HostIPC || spec.ServiceAccountName != "" || !cmp.Equal(spec.AutomountServiceAccountToken, &no) {
		t.Error("it is given more of the node, or of the API")
	}
	if len(container.Env)+len(container.EnvFrom)+len(container.Ports) != 0 || container.Resources.Limits.Memory().IsZero() {
		t.Error("the container has an environment, ports or no limit")
	}
}

// It reaches every node, before other pods, and a bad release does not.
func TestEveryNode(t *testing.T) {
	spec := read(t).daemonSet.Spec
	if diff := cmp.Diff([]core.Toleration{{Operator: core.TolerationOpExists}}, spec.Template.Spec.Tolerations); diff != "" {
		t.Errorf("tolerations (-want +got):\n%s", diff)
	}
	if spec.Template.Spec.PriorityClassName != "system-node-critical" {
		t.Errorf("priority class %q", spec.Template.Spec.PriorityClassName)
	}
	if update := spec.UpdateStrategy.RollingUpdate; update == nil || update.MaxUnavailable == nil || spec.MinReadySeconds == 0 {
		t.Errorf("update strategy %+v", spec.UpdateStrategy)
	}
	if !cmp.Equal(spec.Selector.MatchLabels, spec.Template.Labels) {
		t.Error("the selector does not match the pods")
	}
}

// The networks are on the bridge that nmstate makes: VLAN-aware, without STP, and without an address that would speak for it.
func TestNetworksAreOnTheBridge(t *testing.T) {
	c := read(t)
	bridge := c.policy.Spec.DesiredState.Interfaces[0]
	if len(c.policy.Spec.DesiredState.Interfaces) != 1 || bridge.Type != "linux-bridge" || bridge.State != "up" || len(bridge.Bridge.Port) != 1 {
		t.Fatalf("the policy makes %+v", c.policy.Spec.DesiredState)
	}
	no := false
	for what, is := range map[string]toggle{"STP": bridge.Bridge.Options.STP, "IPv4": bridge.IPv4, "IPv6": bridge.IPv6} {
		if !cmp.Equal(is, toggle{&no}) {
			t.Errorf("%s is not off", what)
		}
	}
	uplink := bridge.Bridge.Port[0]
	if v := uplink.VLAN; v.Mode != "trunk" || !v.EnableNative || v.Tag != 1 || len(v.TrunkTags) != 1 || v.TrunkTags[0].IDRange.Min != 2 || v.TrunkTags[0].IDRange.Max != 4094 {
		t.Errorf("the uplink's VLANs are %+v", v)
	}
	if bridge.CopyMACFrom != uplink.Name {
		t.Errorf("the bridge's MAC is not set to that of %q", uplink.Name)
	}
	modes := map[string]port.Mode{}
	for name, network := range c.networks {
		modes[name] = network.Mode
		if network.Bridge != bridge.Name || !network.MACSpoofCheck {
			t.Errorf("network %q is on %q, spoof check %v", name, network.Bridge, network.MACSpoofCheck)
		}
	}
	if diff := cmp.Diff(map[string]port.Mode{"vms": port.Tap, "containers": port.Veth}, modes); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
}

// The virtual machine uses the binding of the KubeVirt object, with a network that has a tap.
func TestVirtualMachineUsesTheBinding(t *testing.T) {
	c := read(t)
	bindings := map[string]kubevirt.InterfaceBindingPlugin{"tapbridge": {DomainAttachmentType: kubevirt.Tap}}
	if diff := cmp.Diff(&kubevirt.NetworkConfiguration{Binding: bindings}, c.kubeVirt.Spec.Configuration.NetworkConfiguration); diff != "" {
		t.Errorf("KubeVirt's networks (-want +got):\n%s", diff)
	}
	spec := c.machine.Spec.Template.Spec
	nic, network := spec.Domain.Devices.Interfaces[0], spec.Networks[0]
	if nic.MacAddress == "" {
		t.Error("its MAC changes with each pod")
	}
	if nic.Name != network.Name || nic.Binding == nil || nic.Binding.Name != "tapbridge" || network.Multus == nil {
		t.Fatalf("interface %+v, network %+v", nic, network)
	}
	if n := c.networks[network.Multus.NetworkName]; n == nil || n.Mode != port.Tap {
		t.Errorf("there is no network %q with a tap", network.Multus.NetworkName)
	}
}

// The pod for a cluster without controllers is the DaemonSet's.
func TestPod(t *testing.T) {
	p, err := Pod(root, Base, "node1", map[string]string{"plugins": "/plugins"})
	if err != nil {
		t.Fatal(err)
	}
	want := read(t).daemonSet
	if p.Namespace != want.Namespace || p.Spec.NodeName != "node1" || p.Spec.Volumes[0].HostPath.Path != "/plugins" {
		t.Errorf("pod %+v", p)
	}
	if diff := cmp.Diff(want.Spec.Template.Spec.Containers, p.Spec.Containers); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want.Spec.Template.Spec.SecurityContext, p.Spec.SecurityContext); diff != "" {
		t.Errorf("security context (-want +got):\n%s", diff)
	}
}

// A file that its kustomization does not list would be applied by nobody.
func TestEveryFileIsListed(t *testing.T) {
	deploy := filepath.Join(root, "deploy")
	parts, err := filepath.Glob(filepath.Join(deploy, "*", "kustomization.yaml"))
	if err != nil || len(parts) != len(Components)+1 {
		t.Errorf("%v: the parts are %q, want %q and %q", err, parts, Components, Agent)
	}
	for _, part := range append([]string{Base, Agent}, Components...) {
		text, err := os.ReadFile(filepath.Join(deploy, part, "kustomization.yaml"))
		var k struct {
			Resources          []string
			Patches            []struct{ Path string }
			ConfigMapGenerator []struct{ Files []string }
		}
		if err == nil {
			err = yaml.Unmarshal(text, &k)
		}
		if err != nil {
			t.Fatal(err)
		}
		listed := k.Resources
		for _, p := range k.Patches {
			listed = append(listed, p.Path)
		}
		for _, g := range k.ConfigMapGenerator {
			listed = append(listed, g.Files...)
		}
		files, err := filepath.Glob(filepath.Join(deploy, part, "*.[jy]*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if name := filepath.Base(f); name != "kustomization.yaml" && !slices.Contains(listed, name) {
				t.Errorf("%s is not listed", f)
			}
		}
	}
}

// A kustomization of one's own takes base and components together, names an image and another folder for the plugin.
func TestOverlay(t *testing.T) {
	objects, err := overlay(root, map[string]any{
		"images":     []any{map[string]any{"name": "localhost/tapbridge", "newName": "images.test/tapbridge", "newTag": "v1"}},
		"components": append([]string{Agent}, Components...),
		"patches": []any{map[string]any{
			"target": map[string]any{"kind": "DaemonSet", "name": "tapbridge"},
			"patch":  `[{"op":"replace","path":"/spec/template/spec/volumes/0/hostPath/path","value":"/usr/lib/cni"}]`,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{networks: map[string]*config.Config{}}
	for _, o := range objects {
		if err := c.add(o); err != nil {
			t.Error(err)
		}
	}
	pod := c.daemonSet.Spec.Template.Spec
	if len(pod.Containers) != 2 || pod.Containers[1].Image != pod.Containers[0].Image {
		t.Fatalf("containers %+v", pod.Containers)
	}
	if len(objects) != 8 || pod.Containers[0].Image != "images.test/tapbridge:v1" || pod.Volumes[0].HostPath.Path != "/usr/lib/cni" {
		t.Errorf("%d objects, pod %+v", len(objects), pod)
	}
}
