package deploy

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	core "k8s.io/api/core/v1"
)

// With the agent the pod is as before, and has one container more. Where there are two, the plugin's is found by its name.
func TestAgentIsAdded(t *testing.T) {
	c := read(t)
	without, with := c.daemonSet.Spec.Template.Spec, c.agents.Spec.Template.Spec
	if len(with.Containers) != 2 || !cmp.Equal(plugin(t, with), without.Containers[0]) {
		t.Fatalf("containers %+v", with.Containers)
	}
	for _, v := range without.Volumes {
		if !slices.ContainsFunc(with.Volumes, func(w core.Volume) bool { return cmp.Equal(v, w) }) {
			t.Errorf("volume %q is another", v.Name)
		}
	}
	with.Containers, with.Volumes, with.HostNetwork, with.HostPID = without.Containers, without.Volumes, false, false
	if diff := cmp.Diff(without, with); diff != "" {
		t.Errorf("the pod is another:\n%s", diff)
	}
}

func plugin(t *testing.T, spec core.PodSpec) core.Container { return named(t, spec, "install") }

func named(t *testing.T, spec core.PodSpec, name string) core.Container {
	t.Helper()
	i := slices.IndexFunc(spec.Containers, func(c core.Container) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("there is no container %q", name)
	}
	return spec.Containers[i]
}

// The agent may do what its work takes and no more: cmd/tapbridge-agent tests that it does with these capabilities, and does not with
// one less.
func TestLeastPrivilegesOfAgent(t *testing.T) {
	spec := read(t).agents.Spec.Template.Spec
	agent := named(t, spec, "agent")
	yes, no := true, false
	want := core.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		AppArmorProfile: &core.AppArmorProfile{Type: core.AppArmorProfileTypeUnconfined},
		Capabilities:    &core.Capabilities{Drop: []core.Capability{"ALL"}, Add: []core.Capability{"NET_ADMIN", "NET_BROADCAST", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"}},
	}
	if diff := cmp.Diff(&want, agent.SecurityContext); diff != "" {
		t.Errorf("the container (-want +got):\n%s", diff)
	}
	if !spec.HostNetwork || !spec.HostPID || spec.HostIPC || spec.ServiceAccountName != "" || !cmp.Equal(spec.AutomountServiceAccountToken, &no) {
		t.Error("it is given more or less of the node, or of the API")
	}
	if len(agent.Env)+len(agent.EnvFrom)+len(agent.Ports) != 0 || agent.Resources.Limits.Memory().IsZero() {
		t.Error("the container has an environment, ports or no limit")
	}
	mounts := map[string]string{}
	for _, m := range agent.VolumeMounts {
		i := slices.IndexFunc(spec.Volumes, func(v core.Volume) bool { return v.Name == m.Name })
		if i < 0 || spec.Volumes[i].HostPath.Path != m.MountPath {
			t.Errorf("%q is at %q, and not there on the node: ADD holds the same lock", m.Name, m.MountPath)
		}
		if m.MountPath != "/run/tapbridge.lock" && !m.ReadOnly {
			t.Errorf("it can write to %q", m.MountPath)
		}
		mounts[m.Name] = m.MountPath
	}
	if diff := cmp.Diff(map[string]string{"lock": "/run/tapbridge.lock", "netns": "/run/netns", "runtime": "/run/containerd"}, mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

// The agent asks a runtime whose folder it has, and kubelet asks the agent where it answers by default, which is the loopback.
func TestAgentIsReached(t *testing.T) {
	agent := named(t, read(t).agents.Spec.Template.Spec, "agent")
	i := slices.IndexFunc(agent.Args, func(a string) bool { return strings.HasPrefix(a, "-runtime-endpoint=") })
	if i < 0 {
		t.Fatalf("arguments %q", agent.Args)
	}
	_, endpoint, _ := strings.Cut(agent.Args[i], "=")
	if u, err := url.Parse(endpoint); err != nil || !slices.ContainsFunc(agent.VolumeMounts, func(m core.VolumeMount) bool { return strings.HasPrefix(u.Path, m.MountPath+"/") }) {
		t.Errorf("it has no folder with %q: %v", endpoint, err)
	}
	for path, probe := range map[string]*core.Probe{"/healthz": agent.LivenessProbe, "/readyz": agent.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Host != "127.0.0.1" || probe.HTTPGet.Port.IntValue() != 9470 {
			t.Errorf("%s: %+v", path, probe)
		}
	}
}
