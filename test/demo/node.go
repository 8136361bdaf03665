package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/tapbridge/tapbridge/test/guest"
)

// netns is a named network namespace, which `ip netns exec` can enter while the
// demo runs.
type netns string

func (n netns) path() string { return "/run/netns/" + string(n) }

// run executes a program in the namespace and returns what it prints.
func (n netns) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", string(n), name}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// pod is one pod and what was attached to it.
type pod struct {
	netns
	runtime *libcni.RuntimeConf // nil: not attached
	port    string
	mac     net.HardwareAddr
	mtu     int
	guest   guest.Guest
}

// node is a host with a bridge, an uplink, a plain port such as other plugins
// make, and pods.
type node struct {
	host, lan, plain netns
	pods             []*pod
	binary           string
	cni              *libcni.CNIConfig
	list             *libcni.NetworkConfigList
	temp             string
}

const (
	bridgeName = "br0"
	ifName     = "net1"
)

// newNode returns a node also with an error, so that remove can take away what
// there is of it.
func newNode(ctx context.Context, bin, conflist string) (*node, error) {
	name := func(part string) netns { return netns(fmt.Sprintf("tapbridge-demo-%d-%s", os.Getpid(), part)) }
	n := &node{host: name("node"), lan: name("lan"), plain: name("plain"), pods: []*pod{{netns: name("pod1")}, {netns: name("pod2")}}}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return n, err
	}
	n.binary = filepath.Join(bin, "tapbridge")
	if n.list, err = libcni.ConfListFromFile(conflist); err != nil {
		return n, err
	}
	if n.temp, err = os.MkdirTemp("", "tapbridge-demo"); err != nil {
		return n, err
	}
	n.cni = libcni.NewCNIConfigWithCacheDir([]string{bin}, n.temp, nil)
	return n, n.build(ctx)
}

func (n *node) all() []netns {
	all := []netns{n.host, n.lan, n.plain}
	for _, p := range n.pods {
		all = append(all, p.netns)
	}
	return all
}

func (n *node) build(ctx context.Context) error {
	for _, ns := range n.all() {
		if out, err := exec.CommandContext(ctx, "ip", "netns", "add", string(ns)).CombinedOutput(); err != nil {
			return fmt.Errorf("make network namespace %q (are you root?): %w: %s", ns, err, bytes.TrimSpace(out))
		}
	}
	for _, command := range []string{
		"ip link add " + bridgeName + " address 02:00:00:00:00:01 type bridge forward_delay 0 mcast_snooping 0",
		"ip link set " + bridgeName + " up",
		"ip link add up0 type veth peer name lan0 netns " + n.lan.path(),
		"ip link add plain0 type veth peer name eth0 netns " + n.plain.path(),
		"ip link set up0 master " + bridgeName + " up",
		"ip link set plain0 master " + bridgeName + " up",
	} {
		words := strings.Fields(command)
		if _, err := n.host.run(ctx, words[0], words[1:]...); err != nil {
			return err
		}
	}
	if _, err := n.lan.run(ctx, "ip", "link", "set", "lan0", "up"); err != nil {
		return err
	}
	if _, err := n.plain.run(ctx, "ip", "link", "set", "eth0", "up"); err != nil {
		return err
	}
	say("node", "bridge %s with an uplink up0 and a plain port plain0, in namespace %s", bridgeName, n.host)
	return nil
}

// attach plugs pod i into the bridge, as a container runtime does.
func (n *node) attach(ctx context.Context, i int) error {
	p := n.pods[i]
	p.runtime = &libcni.RuntimeConf{
		ContainerID:    fmt.Sprintf("demo-pod-%d", i+1),
		NetNS:          p.path(),
		IfName:         ifName,
		CapabilityArgs: map[string]any{"mac": fmt.Sprintf("52:54:00:00:00:%02x", 0x11+i)},
	}
	began := time.Now()
	var result *types100.Result
	err := n.inHost(func() error {
		r, err := n.cni.AddNetworkList(ctx, n.list, p.runtime)
		if err != nil {
			return err
		}
		result, err = types100.NewResultFromResult(r)
		return err
	})
	if err != nil {
		return fmt.Errorf("ADD: %w", err)
	}
	took := time.Since(began)
	nic := result.Interfaces[len(result.Interfaces)-1]
	p.port, p.mtu = result.Interfaces[1].Name, nic.Mtu
	if p.mac, err = net.ParseMAC(nic.Mac); err != nil {
		return err
	}
	say("ADD", "pod %d: port %s on %s, %s and tap1 in the pod, guest MAC %s, MTU %d (%v)", i+1, p.port, bridgeName, nic.Name, nic.Mac, nic.Mtu, took.Round(100*time.Microsecond))
	return nil
}

// inHost runs f on a thread in the node's namespace: a plugin that it starts is
// in that namespace too.
func (n *node) inHost(f func() error) error {
	return ns.WithNetNSPath(n.host.path(), func(ns.NetNS) error { return f() })
}

func (n *node) detach(ctx context.Context, p *pod) error {
	if p.runtime == nil {
		return nil
	}
	err := n.inHost(func() error { return n.cni.DelNetworkList(ctx, n.list, p.runtime) })
	if err == nil {
		p.runtime = nil
	}
	return err
}

// remove takes everything away, whatever there is. It does not heed an
// interrupt: that is when it is needed most.
func (n *node) remove() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, p := range n.pods {
		if p.guest != nil {
			err = errors.Join(err, p.guest.Close())
		}
		err = errors.Join(err, n.detach(ctx, p))
	}
	for _, ns := range n.all() {
		if _, missing := os.Stat(ns.path()); ns == "" || missing != nil {
			continue
		}
		if out, e := exec.CommandContext(ctx, "ip", "netns", "del", string(ns)).CombinedOutput(); e != nil {
			err = errors.Join(err, fmt.Errorf("remove network namespace %q: %w: %s", ns, e, bytes.TrimSpace(out)))
		}
	}
	if n.temp == "" {
		return err
	}
	return errors.Join(err, os.RemoveAll(n.temp))
}
