package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// cluster is a Kubernetes of one node: etcd, kube-apiserver and kubelet over a runtime, whose network is Multus. Pods name their node,
// so that it needs no scheduler; nobody makes pods but the tests, so that it needs no controllers.
type cluster struct {
	*runtime
	http *http.Client
}

const (
	server = "https://" + nodeAddr + ":6443"
	token  = "e2e" // of a user who may do everything
)

func newCluster(t *testing.T) *cluster {
	t.Helper()
	return newClusterWith(t, (*node).writeClusterNetworks)
}

// newClusterWith makes one whose networks are written by a function.
func newClusterWith(t *testing.T, networks func(*node)) *cluster {
	t.Helper()
	k := containerd2
	k.networks = networks
	c := &cluster{runtime: newRuntime(t, k)}
	c.http = c.client()
	c.startAPIServer()
	c.defineNetworks()
	c.startKubelet()
	return c
}

func (c *cluster) kubernetes(component string, args ...string) *daemon {
	c.t.Helper()
	return c.node.daemon(component, c.command(filepath.Join(tool.Bin, "k8s"), append([]string{component}, args...)...))
}

func (c *cluster) startAPIServer() {
	c.t.Helper()
	const etcd, peers = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	c.kubernetes("etcd", "--data-dir", c.path("etcd"), "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default="+peers, "--unsafe-no-fsync")
	c.write(newKey(c.t), "service-account.key")
	c.write([]byte(token+",admin,admin,system:masters\n"), "tokens.csv")
	apiserver := c.kubernetes("kube-apiserver", "--etcd-servers", etcd, "--bind-address", nodeAddr, "--advertise-address", nodeAddr,
		"--secure-port", "6443", "--cert-dir", c.path("apiserver"), "--token-auth-file", c.path("tokens.csv"),
		"--authorization-mode", "AlwaysAllow", "--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none",
		"--service-cluster-ip-range", "10.96.0.0/16", "--service-account-issuer", "https://e2e.test",
		"--service-account-key-file", c.path("service-account.key"), "--service-account-signing-key-file", c.path("service-account.key"))
	eventually(c.t, "kube-apiserver is ready", func() error {
		if err := apiserver.ended(); err != nil {
			c.t.Fatal(err)
		}
		return c.api("GET", "/readyz", nil, nil)
	})
}

func newKey(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

func (c *cluster) startKubelet() {
	c.t.Helper()
	config := c.configure("kubelet.yaml", struct{ Dir, Socket string }{c.path("kubelet"), c.socket()})
	kubelet := c.kubernetes("kubelet", "--config", config, "--kubeconfig", c.kubeconfig(), "--root-dir", c.path("kubelet", "root"),
		"--cert-dir", c.path("kubelet", "pki"), "--hostname-override", "node1", "--node-ip", nodeAddr)
	eventually(c.t, "the node is ready", func() error {
		if err := kubelet.ended(); err != nil {
			c.t.Fatal(err)
		}
		return c.nodeReady()
	})
}

func (c *cluster) nodeReady() error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.api("GET", "/api/v1/nodes/node1", nil, &node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" && condition.Status == "True" {
			return nil
		}
	}
	return fmt.Errorf("the node has conditions %v", node.Status.Conditions)
}

// kubeconfig is the path of the file by which kubelet and Multus find the API.
func (n *node) kubeconfig() string {
	n.t.Helper()
	if _, err := os.Stat(n.path("kubeconfig")); err == nil {
		return n.path("kubeconfig")
	}
	return n.configure("kubeconfig", struct{ Server, Token string }{server, token})
}
