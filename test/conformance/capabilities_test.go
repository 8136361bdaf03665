package conformance

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// capabilities are all that the plugin may need, as README.md says.
var capabilities = []string{"NET_ADMIN", "SYS_ADMIN"}

// needs are those that a verb cannot do without, in every mode.
var needs = map[string][]string{
	"ADD":    {"NET_ADMIN", "SYS_ADMIN"},
	"CHECK":  {"SYS_ADMIN"},
	"DEL":    {"NET_ADMIN"},
	"GC":     {"NET_ADMIN"},
	"STATUS": nil,
}

// limitedTo runs the plugin as root with no capabilities but these.
func (c *caller) limitedTo(capabilities ...string) *caller {
	c.t.Helper()
	set := "-all"
	for _, name := range capabilities {
		set += ",+" + strings.ToLower(name)
	}
	setpriv := tool(c.t, "setpriv", "util-linux", "--version")
	return c.behind(setpriv, "--bounding-set="+set, "--inh-caps=-all", "--no-new-privs", "--")
}

// limited calls the plugin with all that it may need, and no more.
func (n *node) limited(verb string, c conf, changes ...env) answer {
	n.t.Helper()
	return n.prepare(verb, c, changes...).limitedTo(capabilities...).run()
}

// Two capabilities are enough for every verb, whatever is asked for.
func TestCapabilitiesAreEnough(t *testing.T) {
	rich := map[string]conf{
		"new bridge": newBridge,
		"bandwidth":  {"bandwidth": conf{"ingressRate": 1e6, "ingressBurst": 1e6, "egressRate": 1e6, "egressBurst": 1e6}},
	}
	for name, c := range kinds {
		rich[name] = c
	}
	eachMode(t, func(t *testing.T, n *node) {
		for name, c := range rich {
			t.Log(name)
			before := n.world()
			for _, path := range []string{n.pod.Path, ""} {
				n.limited("STATUS", n.conf(c), noAttachment).silent()
				added := n.limited("ADD", n.conf(c)).ok()
				n.limited("CHECK", n.conf(c, added.prev())).silent()
				n.call("CHECK", n.conf(c, added.prev())).silent()
				n.limited("GC", n.conf(c, conf{validKey: valid("c1", "net1")}), noAttachment).silent()
				n.limited("DEL", n.conf(c, added.prev()), env{"CNI_NETNS": path}).silent()
			}
			n.limited("ADD", n.conf(c)).ok()
			n.limited("GC", n.conf(c, conf{validKey: valid()}), noAttachment).silent()
			if c["createBridge"] != nil {
				n.sh(n.host, nil, "ip link del br1")
			}
			n.same(before)
		}
	})
}

// So they are for a gateway with masquerading. CHECK and STATUS then need
// NET_ADMIN as well: the kernel shows nobody else the rules
// (net/netfilter/nfnetlink.c, nfnetlink_rcv).
func TestCapabilitiesOfAGateway(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.limited("STATUS", n.conf(masq), noAttachment).silent()
		n.prepare("STATUS", n.conf(masq), noAttachment).limitedTo("SYS_ADMIN").run().fails(50, "permi")
		added := n.limited("ADD", n.conf(masq)).ok()
		n.limited("CHECK", n.conf(masq, added.prev())).silent()
		n.prepare("CHECK", n.conf(masq, added.prev())).limitedTo("SYS_ADMIN").run().fails(anyCode, "permi")
		n.limited("DEL", n.conf(masq, added.prev())).silent()
		if got := n.rules(); len(got) > 0 {
			t.Errorf("rules are left: %q", got)
		}
		n.limited("ADD", n.conf(masq)).ok()
		n.limited("GC", n.conf(masq, conf{validKey: valid()}), noAttachment).silent()
		if got := n.rules(); len(got) > 0 {
			t.Errorf("rules are left: %q", got)
		}
	})
}

// And for Kata's file.
func TestCapabilitiesOfDAN(t *testing.T) {
	t.Parallel()
	k := newKata(t)
	k.ipam.on("ADD", guestsNetwork)
	run := func(verb string, c conf) answer {
		return k.prepare(verb, c).limitedTo(capabilities...).masked(k.script()).run()
	}
	added := run("ADD", k.conf()).ok()
	k.wantDevices(1, "after ADD")
	run("CHECK", k.conf(added.prev())).silent()
	run("DEL", k.conf(added.prev())).silent()
	k.wantDevices(0, "after DEL")
}

// Without one of those that it needs a verb fails and leaves all as it was;
// without another it does its whole work.
func TestCapabilitiesNeeded(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for verb, needed := range needs {
			for _, without := range capabilities {
				t.Logf("%s without %s", verb, without)
				n.lack(verb, without, slices.Contains(needed, without))
			}
		}
		n.prepare("STATUS", n.conf(libvirt), noAttachment).limitedTo().run().silent()
	})
}

// lack calls a verb without one capability.
func (n *node) lack(verb, without string, needed bool) {
	n.t.Helper()
	empty := n.world()
	c, e := n.conf(libvirt, conf{validKey: valid()}), env{}
	if verb == "STATUS" || verb == "GC" {
		e = noAttachment
	}
	if verb != "ADD" {
		c = c.with(n.call("ADD", n.conf(libvirt)).ok().prev())
	}
	before := n.world()
	rest := slices.DeleteFunc(slices.Clone(capabilities), func(name string) bool { return name == without })
	a := n.prepare(verb, c, e).limitedTo(rest...).run()
	switch {
	case needed:
		a.fails(anyCode, "permi", "(tapbridge is run without CAP_"+without+")") // denied, or an operation not permitted
		n.same(before)
	case verb == "DEL" || verb == "GC":
		a.silent()
		n.same(empty)
	default:
		a.silent()
		n.same(before)
	}
	n.call("DEL", n.conf(libvirt)).silent()
	n.same(empty)
}

// Who is not root is told so, and not to load a module.
func TestNobody(t *testing.T) {
	inModes(t, []string{"tap"}, func(t *testing.T, n *node) {
		tool(t, "setpriv", "util-linux", "--version")
		const script = `mount -t tmpfs none /mnt; cp "$0" /mnt/tapbridge; exec setpriv --reuid=65534 --regid=65534 --clear-groups /mnt/tapbridge`
		for _, verb := range []string{"STATUS", "ADD", "GC"} {
			a := n.prepare(verb, n.conf(conf{validKey: valid()})).behind("unshare", "--mount", "--propagation", "private", "sh", "-ec", script).run()
			if f := a.fails(anyCode, "(tapbridge must be run by root)"); strings.Contains(f.Msg, "modprobe") {
				t.Errorf("%s: %s", verb, f.Msg)
			}
		}
	})
}

// Where the port is gone, only the pod's namespace leads to the tap. A DEL that cannot
// enter it, though it is there, fails, so that the runtime asks again; it has done
// the rest, and is content when the namespace is gone.
func TestCapabilityToFindALostTap(t *testing.T) {
	inModes(t, []string{"tap"}, func(t *testing.T, n *node) {
		n.ipam.on("ADD", dual())
		before := n.world()
		n.sh(n.host, n.call("ADD", n.conf(spoofChecked)).result(), "ip link del PORT")
		del := func() *caller { return n.prepare("DEL", n.conf(spoofChecked)) }
		for range 2 {
			del().limitedTo("NET_ADMIN").run().fails(anyCode, n.pod.Path+`": enter the network namespace: operation not permitted`)
		}
		n.noTable()
		if n.ipam.last().Verb != "DEL" {
			t.Error("the delegate has not been called")
		}
		if !slices.Contains(n.names(n.pod), "tap1") {
			t.Error("the tap was found without SYS_ADMIN: README.md says that this takes it")
		}
		n.prepare("DEL", n.conf(spoofChecked), env{"CNI_NETNS": n.pod.Path + ".gone"}).limitedTo("NET_ADMIN").run().silent()
		del().limitedTo(capabilities...).run().silent()
		n.same(before)
	})
}

// README.md has the table of what each verb needs.
func TestREADMEHasTheCapabilities(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	table := "| verb | CAP_" + strings.Join(capabilities, " | CAP_") + " |\n|---|---|---|\n"
	for _, verb := range []string{"ADD", "CHECK", "DEL", "GC", "STATUS"} {
		row := []string{verb}
		for _, c := range capabilities {
			row = append(row, map[bool]string{true: "needed", false: "no"}[slices.Contains(needs[verb], c)])
		}
		table += fmt.Sprintf("| %s |\n", strings.Join(row, " | "))
	}
	if !strings.Contains(string(readme), table+"\n") {
		t.Errorf("README.md does not have exactly this table:\n%s", table)
	}
}
