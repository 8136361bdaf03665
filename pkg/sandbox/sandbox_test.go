package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/sandbox"
)

// asClient makes the test binary ask the runtime at that endpoint.
const asClient = "TAPBRIDGE_TEST_RUNTIME_ENDPOINT"

func TestMain(m *testing.M) {
	if endpoint := os.Getenv(asClient); endpoint != "" {
		fmt.Println(list(endpoint))
		return
	}
	os.Exit(m.Run())
}

func list(endpoint string) ([]string, error) {
	r, err := sandbox.Open(endpoint)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ids, err := r.IDs(ctx)
	return ids, errors.Join(err, r.Close())
}

// service answers as a runtime does.
type service struct {
	cri.UnimplementedRuntimeServiceServer
	ids []string
	err error
}

func (s *service) ListPodSandbox(context.Context, *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	answer := &cri.ListPodSandboxResponse{}
	for i, id := range s.ids {
		state := cri.PodSandboxState(i % 2)
		answer.Items = append(answer.Items, &cri.PodSandbox{Id: id, State: state, Annotations: map[string]string{"a": strings.Repeat("x", 20_000)}})
	}
	return answer, s.err
}

// serve returns the endpoint.
func serve(t *testing.T, s *service) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cri.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, s)
	go func() { _ = server.Serve(l) }() // ends with Stop
	t.Cleanup(server.Stop)
	return "unix://" + path
}

// Every sandbox is told, whatever its state, also of a full node with much to say.
func TestIDs(t *testing.T) {
	t.Parallel()
	var want []string
	for i := range 500 {
		want = append(want, fmt.Sprintf("%064d", i))
	}
	got, err := list(serve(t, &service{ids: want}))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%d sandboxes, want %d: %v", len(got), len(want), err)
	}
}

func TestRuntimeCannotBeAsked(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ endpoint, want string }{
		"refuses":       {serve(t, &service{ids: []string{"a"}, err: errors.New("not initialized yet")}), "not initialized yet"},
		"is not there":  {"unix://" + filepath.Join(t.TempDir(), "cri.sock"), "no such file or directory"},
		"of no scheme":  {"/run/cri.sock", `runtime endpoint "/run/cri.sock": want unix:// and an absolute path`},
		"of a relative": {"unix://run/cri.sock", `runtime endpoint "unix://run/cri.sock": want unix:// and an absolute path`},
	} {
		if ids, err := list(c.endpoint); err == nil || len(ids) > 0 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("a runtime that %s: %q, %v; want %q", what, ids, err, c.want)
		}
	}
}

// From a pid namespace of one's own the processes of pods are not to be seen, and so
// the runtime's answer is not to be used.
func TestRuntimeInAnotherPIDNamespace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		nstest.Skip(t, "a pid namespace needs root")
	}
	endpoint := serve(t, &service{ids: []string{"a"}})
	for flags, want := range map[uintptr]string{0: "[a] <nil>", unix.CLONE_NEWPID: "run in the node's (hostPID)"} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), asClient+"="+endpoint)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("clone flags %x: %s%v; want %q", flags, out, err, want)
		}
	}
}
