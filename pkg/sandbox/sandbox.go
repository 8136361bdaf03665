// Package sandbox asks the container runtime of the node which pod sandboxes it
// knows, and asks for nothing else. What becomes of the ports of others is decided
// in package agent.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrUnseen says that the process of the runtime is not among those that can be seen
// from here, and so pods' processes are not either: nobody can tell whether they live.
var ErrUnseen = errors.New("its process is in a pid namespace that is not ours: run in the node's (hostPID)")

// Runtime is a container runtime, by its socket.
type Runtime struct {
	conn   *grpc.ClientConn
	client cri.RuntimeServiceClient
}

// scheme begins an endpoint: the one kind that kubelet has on Linux.
const scheme = "unix://"

// Open prepares to ask the runtime at an endpoint such as
// unix:///run/containerd/containerd.sock. It need not run yet.
func Open(endpoint string) (*Runtime, error) {
	path, is := strings.CutPrefix(endpoint, scheme)
	if !is || !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("runtime endpoint %q: want %s and an absolute path", endpoint, scheme)
	}
	const largest = 16 << 20 // bytes; kubelet takes as much (pkg/kubelet/cri/remote, maxMsgSize)
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, path) }
	conn, err := grpc.NewClient("passthrough:///localhost", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dial), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largest)))
	if err != nil {
		return nil, fmt.Errorf("runtime endpoint %q: %w", endpoint, err)
	}
	return &Runtime{conn, cri.NewRuntimeServiceClient(conn)}, nil
}

// Close gives the connection back.
func (r *Runtime) Close() error { return r.conn.Close() }

// IDs are those of the sandboxes that the runtime knows, ready or not. Errors:
// ErrUnseen in the text, and what the runtime says.
func (r *Runtime) IDs(ctx context.Context) (ids []string, err error) {
	answer, err := r.client.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask the runtime for its sandboxes: %w", err)
	}
	for _, s := range answer.GetItems() {
		ids = append(ids, s.GetId())
	}
	return ids, nil
}

// dial refuses a runtime whose process has no number here (unix(7), SO_PEERCRED;
// net/core/sock.c, cred_to_ucred).
func dial(ctx context.Context, path string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	pid, err := peer(conn.(*net.UnixConn))
	if err == nil && pid == 0 {
		err = ErrUnseen
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("runtime at %s: %w", path, err), conn.Close())
	}
	return conn, nil
}

func peer(conn *net.UnixConn) (pid int32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(controlErr, err); err != nil {
		return 0, err
	}
	return cred.Pid, nil
}
