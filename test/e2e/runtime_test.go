package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runtime is a container runtime on a node of its own, called as kubelet calls it.
type runtime struct {
	*node
	cri.RuntimeServiceClient
	kind   kind
	daemon *daemon
}

// kind is a container runtime of one version.
type kind struct {
	cni   string // the newest version of CNI that it takes
	start func(*runtime) *daemon
	load  func(*runtime) // the image, once it runs; nil if that was done before

	networks func(*node) // writes them; nil for the usual ones
}

func newRuntime(t *testing.T, k kind) *runtime {
	t.Helper()
	r := &runtime{node: newNode(t, k.cni), kind: k}
	if k.networks == nil {
		k.networks = (*node).writeNetworks
	}
	k.networks(r.node)
	r.write(saved(t), "image.tar")
	r.start()
	conn, err := grpc.NewClient("unix://"+r.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	r.RuntimeServiceClient = cri.NewRuntimeServiceClient(conn)
	r.ready()
	if k.load != nil {
		k.load(r)
	}
	return r
}

// start waits for the socket itself: gRPC would wait for a second after the first failure.
func (r *runtime) start() {
	r.t.Helper()
	_ = os.Remove(r.socket()) // of one that was killed, if any
	r.daemon = r.kind.start(r)
	eventually(r.t, r.daemon.name+" listens", func() error {
		if err := r.daemon.ended(); err != nil {
			r.t.Fatal(err)
		}
		conn, err := net.Dial("unix", r.socket())
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// restart kills the runtime without warning and starts it again.
func (r *runtime) restart() {
	r.t.Helper()
	r.daemon.kill()
	r.start()
	r.ready()
}

func (r *runtime) socket() string { return r.path("cri.sock") }

// ready waits until pods can be started.
func (r *runtime) ready() {
	r.t.Helper()
	eventually(r.t, r.daemon.name+" is ready", func() error {
		return errors.Join(r.condition(cri.RuntimeReady), r.condition(cri.NetworkReady))
	})
}

// condition says why the runtime is not in a condition.
func (r *runtime) condition(name string) error {
	answer, err := r.Status(patient(r.t), &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range answer.Status.Conditions {
		if c.Type == name && c.Status {
			return nil
		}
		if c.Type == name {
			return fmt.Errorf("%s: %s: %s", name, c.Reason, c.Message)
		}
	}
	return fmt.Errorf("no condition %q", name)
}

// blanks are what the runtimes' configurations leave open.
type blanks struct {
	Dir, Socket, Plugins, Networks, Image, Runc string
	Handlers                                    []string
}

func (r *runtime) blanks() blanks {
	runc := r.configure("runc.sh", struct{ Cgroup, Runc string }{r.cgroup(), tool.Runc()})
	must(r.t, os.Chmod(runc, 0o755))
	return blanks{r.path("runtime"), r.socket(), r.path("plugins"), r.path("networks"), image, runc, handlers}
}
