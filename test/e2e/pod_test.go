package e2e

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pod is a pod that a runtime has started.
type pod struct {
	*runtime
	id     string
	config *cri.PodSandboxConfig
}

// sandbox is what kubelet would ask for to make a pod.
func (r *runtime) sandbox(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name + "-uid"},
		LogDirectory: r.path("logs"),
		Linux:        &cri.LinuxPodSandboxConfig{CgroupParent: r.cgroup()},
	}
}

// pod starts a pod of a kind: "" or one of handlers.
func (r *runtime) pod(name, handler string) *pod {
	r.t.Helper()
	config := r.sandbox(name)
	answer, err := r.RunPodSandbox(patient(r.t), &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	must(r.t, err)
	return &pod{r, answer.PodSandboxId, config}
}

func (p *pod) stop() {
	p.t.Helper()
	_, err := p.StopPodSandbox(patient(p.t), &cri.StopPodSandboxRequest{PodSandboxId: p.id})
	must(p.t, err)
}

func (p *pod) remove() {
	p.t.Helper()
	_, err := p.RemovePodSandbox(patient(p.t), &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	must(p.t, err)
}

// address is what kubelet would report as the pod's.
func (p *pod) address() string {
	p.t.Helper()
	answer, err := p.PodSandboxStatus(patient(p.t), &cri.PodSandboxStatusRequest{PodSandboxId: p.id})
	must(p.t, err)
	return answer.Status.Network.GetIp()
}

// pid is that of the pod's first process, in the box.
func (p *pod) pid() string {
	p.t.Helper()
	answer, err := p.PodSandboxStatus(patient(p.t), &cri.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
	must(p.t, err)
	return pidIn(p.t, answer.Info)
}

// pidIn is the process that a verbose status names.
func pidIn(t *testing.T, verbose map[string]string) string {
	t.Helper()
	var info struct{ Pid int }
	must(t, json.Unmarshal([]byte(verbose["info"]), &info))
	return strconv.Itoa(info.Pid)
}

// inside runs a command in the pod's network namespace.
func (p *pod) inside(name string, args ...string) string {
	p.t.Helper()
	return p.run("nsenter", append([]string{"-t", p.pid(), "-n", "--", name}, args...)...)
}

// container starts a container in the pod and returns its id. What is asked for beyond the arguments of peer is the caller's.
func (p *pod) container(name string, config *cri.ContainerConfig) string {
	p.t.Helper()
	config.Metadata = &cri.ContainerMetadata{Name: name}
	config.Image = &cri.ImageSpec{Image: image, UserSpecifiedImage: image}
	config.LogPath = name + ".log"
	made, err := p.CreateContainer(patient(p.t), &cri.CreateContainerRequest{PodSandboxId: p.id, SandboxConfig: p.config, Config: config})
	must(p.t, err)
	_, err = p.StartContainer(patient(p.t), &cri.StartContainerRequest{ContainerId: made.ContainerId})
	must(p.t, err)
	return made.ContainerId
}

// peer starts a container with peer and returns its id.
func (p *pod) peer(args ...string) string {
	p.t.Helper()
	return p.container("peer", &cri.ContainerConfig{Args: args, Linux: &cri.LinuxContainerConfig{}})
}

// exec runs peer once more in a container and returns what it said.
func (r *runtime) exec(container string, args ...string) (string, error) {
	request := &cri.ExecSyncRequest{ContainerId: container, Cmd: append([]string{"/peer"}, args...), Timeout: int64(patience.Seconds())}
	answer, err := r.ExecSync(patient(r.t), request)
	if err != nil {
		return "", err
	}
	if answer.ExitCode != 0 {
		return "", fmt.Errorf("%q: exit code %d: %s", args, answer.ExitCode, strings.TrimSpace(string(answer.Stderr)))
	}
	return string(answer.Stdout), nil
}
