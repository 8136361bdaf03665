package conformance

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hostLocal is the reference IPAM plugin, with its state in a directory of the
// test's own.
func hostLocal(t *testing.T) conf {
	return conf{"ipam": conf{"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": filepath.Join(t.TempDir(), "addresses")}}
}

// A MAC given by capability is honoured, and wins over args.cni.mac, that over
// CNI_ARGS, that over the configuration's own.
func Test40SourcesOfTheMAC(t *testing.T) {
	const first, second, third, fourth = "02:00:00:00:01:01", "02:00:00:00:01:02", "02:00:00:00:01:03", "02:00:00:00:01:04"
	capability := conf{"capabilities": conf{"mac": true}, "runtimeConfig": conf{"mac": fourth}}
	args := conf{"args": conf{"cni": conf{"mac": third}}}
	eachMode(t, func(t *testing.T, n *node) {
		for name, c := range map[string]struct {
			conf conf
			env  string
			want string
		}{
			"configuration":       {conf{"mac": first}, "", first},
			"over it CNI_ARGS":    {conf{"mac": first}, "MAC=" + second, second},
			"over it args":        {args.with(conf{"mac": first}), "MAC=" + second, third},
			"over it capability":  {capability.with(args, conf{"mac": first}), "MAC=" + second, fourth},
			"capability alone":    {capability, "", fourth},
			"args alone":          {args, "", third},
			"CNI_ARGS alone":      {nil, "MAC=" + second, second},
			"capital letters":     {conf{"mac": "02:AB:CD:EF:00:01"}, "", "02:ab:cd:ef:00:01"},
			"first byte is FE":    {conf{"mac": "fe:00:00:00:00:01"}, "", "fe:00:00:00:00:01"},
			"globally registered": {conf{"mac": "00:16:3e:00:00:01"}, "", "00:16:3e:00:00:01"},
		} {
			added := n.call("ADD", n.conf(c.conf), env{"CNI_ARGS": c.env})
			nic := added.result().nic()
			got := []string{nic.MAC}
			if n.mode() != "host-tap" {
				got = append(got, n.links(n.pod)["net1"].Address)
			}
			for _, mac := range got {
				if mac != c.want {
					t.Errorf("%s: MAC %s, want %s", name, mac, c.want)
				}
			}
			n.call("CHECK", n.conf(c.conf, added.prev())).silent() // runtimes pass CNI_ARGS with ADD only
			n.call("DEL", n.conf(c.conf)).ok()
		}
	})
}

// Without any source the MAC is the same again for the same attachment, and
// another for another (design.md, section 2).
func TestComputedMACIsStable(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	macs := map[string]string{}
	for range 2 {
		for _, id := range []string{"c1", "c2"} {
			for _, name := range []string{"net1", "net2"} {
				got := n.call("ADD", n.conf(), env{"CNI_CONTAINERID": id, "CNI_IFNAME": name}).result().nic().MAC
				n.call("DEL", n.conf(), env{"CNI_CONTAINERID": id, "CNI_IFNAME": name}).ok()
				if before := macs[id+name]; before != "" && got != before {
					t.Errorf("%s, %s: MAC %s, before it was %s", id, name, got, before)
				}
				macs[id+name] = got
			}
		}
	}
	seen := map[string]string{}
	for key, mac := range macs {
		if seen[mac] != "" {
			t.Errorf("%s and %s have both %s", key, seen[mac], mac)
		}
		seen[mac] = key
	}
}

// A malformed, multicast or all-zero MAC is E(7) before anything is made,
// wherever it comes from.
func Test41BadMAC(t *testing.T) {
	t.Parallel()
	sources := map[string]func(mac string) (conf, env){
		"mac":               func(mac string) (conf, env) { return conf{"mac": mac}, nil },
		"CNI_ARGS":          func(mac string) (conf, env) { return nil, env{"CNI_ARGS": "MAC=" + mac} },
		"args.cni.mac":      func(mac string) (conf, env) { return conf{"args": conf{"cni": conf{"mac": mac}}}, nil },
		"runtimeConfig.mac": func(mac string) (conf, env) { return conf{"runtimeConfig": conf{"mac": mac}}, nil },
	}
	n := newNode(t)
	n.unchanged(func() {
		for _, mac := range []string{
			"nonsense", "52:54:00:00:00", "52:54:00:00:00:01:02:03", "52:54:00:00:00:zz", "525400000001", "5254.0000.0001", "52-54-00-00-00-01",
			"00:00:00:00:00:00", "01:00:5e:00:00:01", "33:33:00:00:00:01", "ff:ff:ff:ff:ff:ff", "53:54:00:00:00:01",
		} {
			for name, from := range sources {
				c, e := from(mac)
				t.Log(name)
				n.call("ADD", n.conf(c, recording), e).fails(7, mac)
			}
		}
		n.call("ADD", n.conf(conf{"mac": 5})).fails(7)
		n.call("ADD", n.conf(conf{"runtimeConfig": conf{"mac": []int{1}}})).fails(7)
	})
	if verbs := n.ipam.verbs(); len(verbs) != 0 {
		t.Errorf("the delegate was called: %q", verbs)
	}
}

// Bandwidth reaches the kernel however a runtime spells it, and CHECK holds it to
// what was asked.
func Test42BandwidthIsNotIgnored(t *testing.T) {
	limits := conf{"ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 16000000, "egressBurst": 800000}
	eachMode(t, func(t *testing.T, n *node) {
		for _, asked := range []conf{
			{"capabilities": conf{"bandwidth": true}, "runtimeConfig": conf{"bandwidth": limits}},                                                     // as CRI-O writes it
			{"runtimeConfig": conf{"bandwidth": conf{"IngressRate": 8000000, "IngressBurst": 800000, "EgressRate": 16000000, "EgressBurst": 800000}}}, // containerd
			{"bandwidth": limits},
		} {
			a := n.call("ADD", n.conf(asked)).ok()
			port := a.result().port().Name
			rates := n.host.Run(t, "tc", "qdisc", "show", "dev", port) + n.host.Run(t, "tc", "qdisc", "show", "dev", "tbi"+port[2:])
			if !strings.Contains(rates, "tbf") || !strings.Contains(rates, "rate 8Mbit burst 100000b") || !strings.Contains(rates, "rate 16Mbit burst 100000b") {
				t.Errorf("asked for %v, the kernel has %s", asked, rates)
			}
			n.call("CHECK", n.conf(asked, a.prev())).ok()
			n.call("CHECK", n.conf(a.prev())).fails(100, "alias is", "bw=1000000:100000/2000000:100000")
			n.call("CHECK", n.conf(a.prev(), conf{"bandwidth": limits.with(conf{"ingressRate": 9000000})})).fails(100, "queue is tbf of 8000000 bit/s", "want tbf of 9000000 bit/s")
			n.call("DEL", n.conf(a.prev())).ok()
			n.empty()
		}
		n.call("ADD", n.conf(conf{"capabilities": conf{"bandwidth": true}})).ok() // declared, but nothing is asked for
	})
}

// Capabilities that are not ours do no harm; ips reaches IPAM unmodified.
func Test43ForeignCapabilities(t *testing.T) {
	foreign := conf{
		"ips":            []string{"10.9.0.77/24"},
		"ipRanges":       [][]conf{{{"subnet": "10.9.0.0/24"}}},
		"dns":            conf{"Servers": []string{"10.1.1.1"}, "Searches": nil, "Options": nil},
		"portMappings":   []conf{{"HostPort": 17000, "ContainerPort": 7000, "Protocol": "tcp", "HostIP": ""}},
		"deviceID":       "0000:00:01.0",
		"aliases":        conf{"lan": []string{"web"}},
		"cgroupPath":     "/kubepods/pod1",
		"infinibandGUID": "24:8a:07:03:00:8d:ae:2e",

		"io.kubernetes.cri.pod-annotations": conf{"a": "b"},
	}
	eachMode(t, func(t *testing.T, n *node) {
		declared := conf{}
		for name := range foreign {
			declared[name] = true
		}
		c := n.conf(conf{"capabilities": declared, "runtimeConfig": foreign})
		added := n.call("ADD", c.with(recording)).ok()
		n.sameInput("ADD", c.with(recording), nil)
		n.call("CHECK", c.with(recording, added.prev())).silent()
		n.call("DEL", c.with(recording)).silent()
		// And a real one acts on it.
		c = n.conf(hostLocal(t), conf{"runtimeConfig": foreign.with(conf{"ipRanges": nil})})
		ips := n.call("ADD", c).result().IPs
		if len(ips) != 1 || ips[0].Address != "10.9.0.77/24" {
			t.Errorf("addresses %+v, want the one that was asked for", ips)
		}
	})
}

// CNI_ARGS with IgnoreUnknown and K8S_POD_* works; without, an unknown key is
// E(4).
func Test44UnknownArgs(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.unchanged(func() {
		for _, args := range []string{
			"K8S_POD_NAME=web", "MAC=" + guestMAC + ";IP=10.9.0.2", "IgnoreUnknown=0;X=1", "IgnoreUnknown=false;X=1", "IgnoreUnknown=maybe", "MAC", "=", "A=b=c",
		} {
			n.call("ADD", n.conf(), env{"CNI_ARGS": args}).fails(4)
		}
	})
	for _, ignore := range []string{"1", "true", "TRUE"} {
		args := "IgnoreUnknown=" + ignore + ";K8S_POD_NAMESPACE=a;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u;MAC=" + guestMAC
		added := n.call("ADD", n.conf(), env{"CNI_ARGS": args})
		if got := added.result().nic().MAC; got != guestMAC {
			t.Errorf("%q: MAC %s", args, got)
		}
		n.call("CHECK", n.conf(added.prev()), env{"CNI_ARGS": args}).silent()
		n.call("DEL", n.conf(), env{"CNI_ARGS": args}).silent()
	}
}

// CNI_ARGS MAC with a delegate that does not know it and no IgnoreUnknown: our
// own keys do not reach it, all others do.
func Test45OwnArgsAreNotForDelegates(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		args := env{"CNI_ARGS": "MAC=" + guestMAC}
		local := hostLocal(t)
		added := n.call("ADD", n.conf(local), args)
		if r := added.result(); len(r.IPs) != 1 || r.nic().MAC != guestMAC {
			t.Errorf("want the MAC and an address: %s", added.stdout)
		}
		n.call("CHECK", n.conf(local, added.prev()), args).silent()
		n.call("DEL", n.conf(local), args).silent()

		n.call("ADD", n.conf(recording), env{"CNI_ARGS": "IgnoreUnknown=1;MAC=" + guestMAC + ";IP=10.9.0.2;K8S_POD_NAME=web"}).ok()
		if diff := cmp.Diff("IgnoreUnknown=1;IP=10.9.0.2;K8S_POD_NAME=web", n.ipam.last().Env["CNI_ARGS"]); diff != "" {
			t.Errorf("CNI_ARGS of the delegate (-want +got):\n%s", diff)
		}
	})
}
