package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a tenant may choose is its MAC, by way of Multus its interface's name and
// CNI_ARGS, and in a cluster that lets it write network attachment definitions
// the whole configuration. None of it reaches further than its own attachment.

// Addresses that cannot be one station's are refused; those that routers share are
// stations' addresses like others.
func TestTenantMAC(t *testing.T) {
	t.Parallel()
	n := newNode(t, libvirt)
	n.unchanged(func() {
		for _, mac := range []string{
			"01:80:c2:00:00:00", "01:80:c2:00:00:03", "01:80:c2:00:00:0e", "01:80:c2:00:00:21", "01:00:5e:00:00:12", "33:33:00:00:00:01",
			"ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00",
		} {
			n.call("ADD", n.conf(conf{"mac": mac})).fails(7, "mac", mac)
			n.call("ADD", n.conf(), env{"CNI_ARGS": "MAC=" + mac}).fails(7, mac)
			n.call("ADD", n.conf(conf{"capabilities": conf{"mac": true}, "runtimeConfig": conf{"mac": mac}})).fails(7, mac)
		}
		for _, mac := range []string{"../../etc", "52:54:00:00:00:01 opt=l", "52:54:00:00:00:01:02:03", "5254.0000.0001\n", strings.Repeat("5", 100000)} {
			n.call("ADD", n.conf(conf{"mac": mac})).fails(7, "mac")
		}
	})
	for _, mac := range []string{"00:00:5e:00:01:01", "00:00:5e:00:02:01", "fe:00:00:00:00:01", "fa:00:00:00:00:02"} {
		n.call("ADD", n.conf(conf{"mac": mac})).ok()
		n.call("DEL", n.conf()).silent()
	}
}

// Names and ids that lead out of a folder, or into another record, are refused by
// name before anything is done.
func TestTenantPaths(t *testing.T) {
	n := newNode(t, conf{"mode": "host-tap", "dan": true}, libvirt)
	out := filepath.Join("..", "..", "..", "..", "..", "..", t.TempDir(), "out")
	n.unchanged(func() {
		for _, id := range []string{"../x", "..", "a/../../b", out, "a\x01b", "c1 opt=l", "c1%2e", "-rf"} {
			for _, verb := range []string{"ADD", "DEL", "CHECK"} {
				n.call(verb, n.conf(recording), env{"CNI_CONTAINERID": id}).fails(4, "CNI_CONTAINERID")
			}
		}
		for _, name := range []string{"../x", "..", ".", "a/b", "net1 id=c2", "net1\n", "\x1b[2J", "\xff"} {
			for _, verb := range []string{"ADD", "DEL", "CHECK"} {
				n.call(verb, n.conf(recording), env{"CNI_IFNAME": name}).fails(4, "CNI_IFNAME")
			}
		}
		for _, name := range []string{"../x", out, "lan id=c2", "lan\nx", "..", "lan\"; flush ruleset"} {
			for _, verb := range []string{"ADD", "CHECK", "GC", "STATUS"} {
				n.call(verb, n.conf(recording, conf{"name": name})).fails(7, "name")
			}
		}
		for _, bridge := range []string{"../br0", "br0 mode=veth", "br0/", "..", strings.Repeat("b", 100)} {
			n.call("ADD", n.conf(conf{"bridge": bridge, "createBridge": true})).fails(7, "bridge")
		}
		for _, delegate := range []string{"../" + recorderName, "/bin/sh", "../../../../../../bin/true", ".."} {
			for _, verb := range []string{"ADD", "GC", "STATUS"} {
				n.call(verb, n.conf(conf{"ipam": conf{"type": delegate}})).fails(anyCode)
			}
		}
	})
	if _, err := os.Stat(out); err == nil {
		t.Errorf("%s is there", out)
	}
	if verbs := n.ipam.verbs(); len(verbs) > 0 {
		t.Errorf("the delegate was called: %q", verbs)
	}
}

// An interface's name may have quotes and semicolons in it. It ends up in rules and
// records as the text it is.
func TestTenantInterfaceName(t *testing.T) {
	t.Parallel()
	n := newNode(t, libvirt, conf{"ipMasq": true, "isGateway": true, "bridge": "br1", "createBridge": true}, hostLocal(t))
	tool(t, "nft", "nftables", "list", "ruleset")
	n.call("ADD", n.conf(), of("plain", "net1")).ok()
	n.call("DEL", n.conf(), of("plain", "net1")).silent()
	n.host.Run(t, "nft", "add table inet victim")
	var accepted []string
	n.unchanged(func() {
		for _, name := range []string{`a";flush`, `"`, "a;b", "a'b", "$(id)", "`id`", `a\"`, "#a", "opt=l", "-a", "*"} {
			a := n.call("ADD", n.conf(), env{"CNI_IFNAME": name})
			if a.code != 0 {
				a.fails(4, "CNI_IFNAME")
				continue
			}
			accepted = append(accepted, name)
			n.call("CHECK", n.conf(a.prev()), env{"CNI_IFNAME": name}).silent()
			if rules := n.host.Run(t, "nft", "list", "ruleset"); strings.Count(rules, "masquerade comment") != 1 || !strings.Contains(rules, "table inet victim") {
				t.Errorf("%q: the rules are %s", name, rules)
			}
			n.call("DEL", n.conf(), env{"CNI_IFNAME": name}, nothingKnown).silent()
			if rules := n.host.Run(t, "nft", "list", "ruleset"); strings.Contains(rules, "masquerade") {
				t.Errorf("%q: left are %s", name, rules)
			}
		}
	})
	if t.Logf("accepted are %q", accepted); len(accepted) == 0 {
		t.Error("each of them is refused: nothing was tried")
	}
}

// Input of any size and depth is answered at once, in few words.
func TestTenantEnormousInput(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	whole := strings.TrimSuffix(text(t, n.conf()), "}")
	n.unchanged(func() {
		for name, stdin := range map[string]string{
			"more than is read":   whole + `,"args":"` + strings.Repeat("a", 5<<20) + `"}`,
			"deep":                whole + `,"args":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + `}`,
			"deep, not closed":    whole + `,"args":` + strings.Repeat(`{"a":`, 1<<19),
			"long value":          whole + `,"frobnicate":"` + strings.Repeat("a", 3<<20) + `"}`,
			"long key":            whole + `,"` + strings.Repeat("a", 3<<20) + `":1}`,
			"long name of a mode": whole + `,"mode":"` + strings.Repeat("a", 3<<20) + `"}`,
			"long MAC":            whole + `,"mac":"` + strings.Repeat("a", 3<<20) + `"}`,
			"long number":         whole + `,"mtu":` + strings.Repeat("1", 3<<20) + `}`,
			"many keys":           whole + manyKeys(1e5) + `}`,
			"many VLANs":          whole + `,"vlanTrunk":[` + strings.TrimSuffix(strings.Repeat(`{"minID":1,"maxID":4094},`, 1e5), ",") + `]}`,
		} {
			start := time.Now()
			a := n.call("ADD", stdin)
			if f := a.fails(anyCode); len(f.Msg) > 4096 {
				t.Errorf("%s: an error of %d bytes", name, len(f.Msg))
			}
			t.Logf("%s: %v", name, time.Since(start))
		}
		for _, args := range []string{"MAC=" + strings.Repeat("a", 100000), strings.Repeat("a=b;", 20000) + "x", strings.Repeat("K=", 50000)} {
			if f := n.call("ADD", n.conf(), env{"CNI_ARGS": args}).fails(anyCode); len(f.Msg) > 4096 {
				t.Errorf("CNI_ARGS of %d bytes: an error of %d", len(args), len(f.Msg))
			}
		}
	})
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":%d`, i, i)
	}
	return b.String()
}
