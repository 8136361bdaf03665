package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// fault makes an ADD fail from outside.
type fault struct {
	modes []string // in which it can, or differs; nil: all
	setup func(n *node)
	conf  conf
	code  int    // of the error; anyCode: whatever
	mask  string // script for the mount namespace of the plugin
	full  bool   // the result cannot be written
}

var withTap = []string{"tap", "host-tap"}

// another makes the node have one more guest.
func another(mac string) func(n *node) {
	return func(n *node) {
		n.call("ADD", n.conf(conf{"mac": mac}), env{"CNI_CONTAINERID": "other", "CNI_IFNAME": "net9"}).ok()
	}
}

func onHost(lines string) func(n *node) {
	return func(n *node) { n.sh(n.host, nil, lines) }
}

func inPod(lines string) func(n *node) {
	return func(n *node) { n.sh(n.pod, nil, lines) }
}

// portNameTaken makes a link of the name that the port will have.
func portNameTaken(n *node) {
	r := n.call("ADD", n.conf()).result()
	n.call("DEL", n.conf()).ok()
	n.sh(n.host, r, "ip link add PORT type bridge")
}

func delegateAnswers(b behaviour) func(n *node) {
	return func(n *node) { n.ipam.on("ADD", b) }
}

var faults = map[string]fault{
	"interface name is taken":    {setup: inPod("ip link add net1 type bridge")},
	"tap name is taken by a tap": {modes: []string{"tap"}, setup: inPod("ip tuntap add tap1 mode tap")},
	"tap name is taken":          {modes: []string{"tap"}, setup: inPod("ip link add tap1 type bridge")},
	"port name is taken":         {setup: portNameTaken},
	"no bridge":                  {modes: inTap, conf: conf{"bridge": "br9"}},
	"bridge is something else":   {modes: inTap, conf: conf{"bridge": "uplink"}},
	"MTU is larger":              {modes: inTap, conf: conf{"mtu": 9000}},
	"MAC of the bridge":          {code: 11, modes: inTap, conf: conf{"mac": bridgeMAC}},
	"MAC of a port":              {code: 11, modes: inTap, conf: conf{"mac": "02:00:00:00:00:02"}},
	"MAC has a static entry":     {modes: inTap, conf: conf{"mac": guestMAC}, setup: onHost("bridge fdb add " + guestMAC + " dev uplink master static")},
	"MAC has a local entry":      {code: 11, modes: inTap, conf: conf{"mac": guestMAC}, setup: onHost("bridge fdb add " + guestMAC + " dev uplink master permanent")},
	"MAC of another guest":       {code: 11, conf: conf{"mac": guestMAC}, setup: another(guestMAC)},
	"MAC of another's port":      {code: 11, modes: inTap, conf: conf{"mac": guestPort}, setup: another(guestMAC)},
	"port's MAC is a guest's":    {code: 11, modes: inTap, conf: conf{"mac": guestMAC}, setup: another(guestPort)},

	"delegate is missing":          {conf: conf{"ipam": conf{"type": "nobody"}}},
	"delegate fails":               {conf: recording, setup: delegateAnswers(failure(105, "no"))},
	"delegate says nothing":        {conf: recording, setup: delegateAnswers(behaviour{})},
	"delegate talks nonsense":      {conf: recording, setup: delegateAnswers(behaviour{Stdout: "nonsense"})},
	"delegate gives null":          {conf: recording, setup: delegateAnswers(behaviour{Stdout: `{"cniVersion":"1.1.0","ips":[null]}`})},
	"delegate gives no address":    {code: 7, conf: recording, setup: delegateAnswers(behaviour{Stdout: `{"cniVersion":"1.1.0"}`})},
	"delegate is mistold":          {code: 7, conf: conf{"ipam": conf{"type": "static", "adresses": []conf{{"address": "10.9.0.2/24"}}}}},
	"delegate has another version": {conf: recording, setup: delegateAnswers(behaviour{Stdout: `{"cniVersion":"9.9.9"}`})},
	"address cannot be configured": {
		modes: []string{"veth"}, conf: recording,
		setup: delegateAnswers(gives("10.9.0.2/24", `"routes":[{"dst":"10.8.0.0/16","gw":"10.1.1.1"}]`)),
	},

	"no /dev/net/tun":        {code: 50, modes: withTap, mask: "mount -t tmpfs none /dev/net"},
	"no tun device":          {code: 50, modes: withTap, mask: "mount --bind /dev/null /dev/net/tun"},
	"/proc/sys is read-only": {code: 50, mask: readOnly["/proc/sys"]},
	"/run is read-only":      {code: 50, mask: readOnly["/run"]},
	"result cannot be told":  {full: true, conf: recording},

	"new bridge, name is taken":         {conf: newBridge, setup: inPod("ip link add net1 type bridge")},
	"new bridge, no /dev/net/tun":       {code: 50, modes: withTap, conf: newBridge, mask: "mount -t tmpfs none /dev/net"},
	"new bridge, delegate fails":        {conf: newBridge.with(recording), setup: delegateAnswers(failure(105, "no"))},
	"new bridge, result cannot be told": {conf: newBridge, full: true},
}

// readOnly are scripts for a mount namespace, by what they mount so.
var readOnly = map[string]string{
	"/proc/sys": "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys",
	"/run":      "mount -t tmpfs -o ro none /run",
}

var newBridge = conf{"bridge": "br1", "createBridge": true}

// Whatever fails, the devices, ports, FDB, tc and netfilter of host and pod are
// as they were. (The world as text has all but netfilter.)
func Test33FailureLeavesNothing(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, mode string) {
		for name, f := range faults {
			if f.modes != nil && !slices.Contains(f.modes, mode) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, conf{"mode": mode}, libvirt)
				if f.setup != nil {
					f.setup(n)
				}
				n.unchanged(func() {
					before := n.netfilter()
					n.strike(f)
					if diff := cmp.Diff(before, n.netfilter()); diff != "" {
						t.Errorf("netfilter (-before +after):\n%s", diff)
					}
				})
				if verbs := n.ipam.verbs(); len(verbs) > 0 && verbs[len(verbs)-1] != "DEL" {
					t.Errorf("the delegate was left with %q", verbs)
				}
			})
		}
	})
}

// strike runs an ADD into the fault.
func (n *node) strike(f fault) {
	n.t.Helper()
	c := n.prepare("ADD", n.conf(f.conf))
	if f.mask != "" {
		c.masked(f.mask)
	}
	if !f.full {
		c.run().fails(f.code)
		return
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	defer full.Close()
	c.stdout = full
	if a := c.run(); a.code == 0 {
		a.fatalf("success, although nobody heard the result")
	}
}

// netfilter is what the kernel says about tables in both namespaces: with no nft
// on the machine, as much as /proc shows.
func (n *node) netfilter() (all []string) {
	n.t.Helper()
	for _, ns := range []*nstest.NS{n.host, n.pod} {
		if _, err := exec.LookPath("nft"); err == nil {
			all = append(all, ns.Run(n.t, "nft", "list", "ruleset"))
			continue
		}
		all = append(all, ns.Run(n.t, "sh", "-c", "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>&- || true"))
	}
	return all
}

// When IPAM fails it gets a DEL, then the error is returned.
func Test34IPAMFailure(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.ipam.on("ADD", failure(123, "out of addresses"))
		n.call("ADD", n.conf(recording)).fails(123, "out of addresses")
		if diff := cmp.Diff([]string{"ADD", "DEL"}, n.ipam.verbs()); diff != "" {
			t.Errorf("calls of the delegate (-want +got):\n%s", diff)
		}
	})
}

// The delegate gets the same environment and the whole stdin.
func Test35DelegateInput(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		more := env{"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.9.0.2", "SOMETHING": "else", "CNI_NETNS_OVERRIDE": "0"}
		c := n.conf(recording, conf{
			"args": conf{"cni": conf{"ips": []string{"10.9.0.2"}}}, "runtimeConfig": conf{"ips": []string{"10.9.0.2/24"}}, "cni.dev/x": 1,
		})
		added := n.call("ADD", c, more).ok()
		n.sameInput("ADD", c, more)
		c = c.with(added.prev(), conf{"cni.dev/valid-attachments": []any{conf{"containerID": "c1", "ifname": "net1"}}})
		for _, verb := range []string{"CHECK", "STATUS", "GC", "DEL"} {
			n.call(verb, c, more).ok()
			n.sameInput(verb, c, more)
		}
	})
}

// sameInput compares the delegate's last call with that of the plugin.
func (n *node) sameInput(verb string, c conf, more env) {
	n.t.Helper()
	want, got := n.prepare(verb, c, more), n.ipam.last()
	if diff := cmp.Diff(want.env, got.Env); diff != "" {
		n.t.Errorf("%s: environment (-ours +delegate's):\n%s", verb, diff)
	}
	if want.stdin != got.Stdin {
		n.t.Errorf("%s: stdin is\n%s\nwant\n%s", verb, got.Stdin, want.stdin)
	}
}

// The delegate's stderr appears on ours, whether it fails or not.
func Test36DelegateStderr(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		c := n.conf(recording)
		for _, verb := range []string{"ADD", "CHECK", "STATUS", "GC", "DEL"} {
			for _, b := range []behaviour{failure(99, "no"), gives("10.9.0.2/24")} {
				b.Stderr = fmt.Sprintf("delegate's %s ends with %d\n", verb, b.Code)
				n.ipam.on(verb, b)
				a := n.call(verb, c)
				if !strings.Contains(a.stderr, b.Stderr) || (a.code == 0) != (b.Code == 0) {
					a.fatalf("want the delegate's verdict, and on stderr %q", b.Stderr)
				}
				if verb == "ADD" && a.code == 0 {
					c = c.with(a.prev())
				}
			}
		}
	})
}

// The delegate's DNS is kept unless the configuration has its own.
func Test37DNS(t *testing.T) {
	own := conf{"dns": conf{"nameservers": []string{"10.1.1.1"}}}
	theirs := gives("10.9.0.2/24", `"dns":{"nameservers":["10.2.2.2"],"domain":"example.org"}`)
	fromOwn := map[string]any{"nameservers": []any{"10.1.1.1"}}
	fromTheirs := map[string]any{"nameservers": []any{"10.2.2.2"}, "domain": "example.org"}
	eachMode(t, func(t *testing.T, n *node) {
		for _, c := range []struct {
			conf   conf
			answer behaviour
			want   map[string]any
		}{
			{recording, theirs, fromTheirs},
			{recording.with(own), theirs, fromOwn},
			{recording.with(own), gives("10.9.0.2/24"), fromOwn},
			{own, theirs, fromOwn},
			{recording, gives("10.9.0.2/24"), nil},
		} {
			n.ipam.on("ADD", c.answer)
			r := n.call("ADD", n.conf(c.conf)).result()
			if diff := cmp.Diff(c.want, r.DNS); diff != "" {
				t.Errorf("dns for %v (-want +got):\n%s", c.conf, diff)
			}
			n.call("DEL", n.conf(c.conf)).ok()
		}
	})
}

// A transient condition of the kernel is E(11), and undone like every failure.
func Test39TransientCondition(t *testing.T) {
	tracer := strace(t)
	eachMode(t, func(t *testing.T, n *node) {
		before, struck := n.world(), 0
		for _, errno := range []string{"EBUSY", "EINTR"} {
			for nth := 1; nth < 40; nth += 3 {
				a, hits := n.prepare("ADD", n.conf(libvirt)).struck(tracer, "sendto", "error="+errno, nth)
				if hits == 1 {
					struck++
					a.fails(11)
				} else { // none, or the undoing was struck as well
					n.call("DEL", n.conf(libvirt)).ok()
				}
				n.empty()
			}
		}
		if n.same(before); struck < 5 {
			t.Errorf("only %d faults struck", struck)
		}
	})
}

// Where eBPF is refused, as by lockdown or seccomp, frames are redirected by an
// action: ADD, CHECK and DEL are none the worse for it, whoever may use eBPF in
// between.
func TestRedirectWithoutEBPF(t *testing.T) {
	t.Parallel()
	refused := []string{strace(t), "-f", "-qq", "-o", "/dev/null", "-e", "inject=bpf:error=EPERM"}
	n := newNode(t, libvirt)
	n.unchanged(func() {
		added := n.prepare("ADD", n.conf()).behind(refused...).run()
		added.result()
		for _, dev := range []string{"tap1", "net1"} {
			if shown := n.pod.Run(t, "tc", "filter", "show", "dev", dev, "ingress"); !strings.Contains(shown, "mirred") {
				t.Errorf("the filters of %s are %q", dev, shown)
			}
		}
		n.call("CHECK", n.conf(added.prev())).silent()
		n.prepare("CHECK", n.conf(added.prev())).behind(refused...).run().silent()
		n.call("DEL", n.conf(added.prev())).ok()
		added = n.call("ADD", n.conf()).ok()
		n.prepare("CHECK", n.conf(added.prev())).behind(refused...).run().silent()
		n.call("DEL", n.conf(added.prev())).ok()
	})
	for says, before := range map[string][]string{"frames by mirred, where bpf is faster": refused, "frames by bpf": nil} {
		command := append(slices.Clone(before), tapbridge, "doctor", "br0")
		if out, _ := n.host.Command(command[0], command[1:]...).Output(); !strings.Contains(string(out), says) {
			t.Errorf("%q says %q, want %q", command, out, says)
		}
	}
}
