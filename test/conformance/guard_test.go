package conformance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// spoofChecked asks for the guard, with a delegate that gives addresses.
var spoofChecked = recording.with(conf{"ipSpoofChk": true})

// elements are those of the guard's sets that belong to a port.
func (n *node) elements(set, port string) (all []string) {
	n.t.Helper()
	for line := range strings.Lines(n.host.Run(n.t, "nft", "list", "set", "bridge", "tapbridge", set)) {
		if _, value, found := strings.Cut(line, `"`+port+`" . `); found {
			all = append(all, strings.Trim(value, " },\n"))
		}
	}
	return all
}

func portOf(a answer) string {
	var r struct{ Interfaces []struct{ Name string } }
	a.ok().decode(&r)
	return r.Interfaces[1].Name
}

// What the delegate gives is what the guest may use; CHECK sees whatever becomes of
// it, and DEL takes it away by container id and interface name.
func TestGuard(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.ipam.on("ADD", dual())
		before := n.world()
		n.call("STATUS", n.conf(spoofChecked)).silent()
		n.noTable()
		added := n.call("ADD", n.conf(spoofChecked))
		port := portOf(added)
		got := fmt.Sprint(n.elements("macs", port), n.elements("ipv4", port), len(n.elements("ipv6", port)))
		var r struct{ Interfaces []struct{ MAC string } }
		added.decode(&r)
		if want := fmt.Sprintf("[%s] [10.9.0.2] 2", r.Interfaces[2].MAC); got != want {
			t.Errorf("the guest may speak as %s, want %s", got, want)
		}
		if alias := n.host.Run(t, "ip", "link", "show", port); !strings.Contains(alias, " opt=s") {
			t.Errorf("record does not tell of it: %s", alias)
		}
		check := func() answer { return n.call("CHECK", n.conf(spoofChecked, added.prev())) }
		check().silent()
		for _, c := range []struct{ spoil, mend, says string }{
			{"nft add element bridge tapbridge ipv4 '{ " + port + " . 10.9.0.3 }'", "nft delete element bridge tapbridge ipv4 '{ " + port + " . 10.9.0.3 }'", "ipSpoofChk: addresses is 10.9.0.2 10.9.0.3 fd09::2 fe80"},
			{"nft delete element bridge tapbridge ipv4 '{ " + port + " . 10.9.0.2 }'", "nft add element bridge tapbridge ipv4 '{ " + port + " . 10.9.0.2 }'", "ipSpoofChk: addresses is fd09::2"},
			{"nft delete table bridge tapbridge", "true", "ipSpoofChk is off, want on"},
		} {
			n.host.Run(t, "sh", "-ec", c.spoil)
			check().fails(100, c.says)
			n.host.Run(t, "sh", "-ec", c.mend)
		}
		n.call("DEL", conf{"cniVersion": newest, "name": "lan", "type": "tapbridge"}, env{"CNI_NETNS": ""}).silent()
		n.same(before)
		n.noTable()
		added = n.call("ADD", n.conf(spoofChecked)).ok()
		n.call("DEL", conf{"cniVersion": newest, "name": "lan", "type": "tapbridge"}, env{"CNI_NETNS": ""}).silent()
		n.noTable()
	})
}

// A port that has gone with the pod's namespace leaves nothing behind for long.
func TestGuardOfAVanishedPort(t *testing.T) {
	for name, end := range map[string]func(n *node, e env){
		"DEL": func(n *node, e env) { n.call("DEL", n.conf(spoofChecked), e, env{"CNI_NETNS": ""}).silent() },
		"GC": func(n *node, _ env) {
			n.call("GC", n.conf(spoofChecked, conf{validKey: valid()}), noAttachment).silent()
		},
		"GC that keeps it": func(n *node, _ env) {
			n.call("GC", n.conf(spoofChecked, conf{validKey: valid("gone", "net1")}), noAttachment).silent()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.ipam.on("ADD", dual())
			gone := of("gone", "net1")
			port := portOf(n.call("ADD", n.conf(spoofChecked), gone))
			n.host.Run(t, "ip", "link", "del", port) // as the kernel does it
			end(n, gone)
			n.noTable()
		})
	}
}

// GC keeps what belongs to valid attachments.
func TestGuardSurvivesGC(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.ipam.on("ADD", dual())
		kept := n.call("ADD", n.conf(spoofChecked), of("live", "net1")).ok()
		second := nstest.New(t)
		n.call("ADD", n.conf(spoofChecked), of("stale", "net1"), env{"CNI_NETNS": second.Path}).ok()
		n.call("GC", n.conf(spoofChecked, conf{validKey: valid("live", "net1")}), noAttachment).silent()
		n.call("CHECK", n.conf(spoofChecked, kept.prev()), of("live", "net1")).silent()
		if got := n.elements("ipv4", portOf(kept)); len(got) != 1 {
			t.Errorf("addresses %q, want one", got)
		}
	})
}

// Whatever fails, no rule is left.
func TestGuardFailureLeavesNothing(t *testing.T) {
	for name, f := range map[string]fault{
		"no ipam":               {code: 7, conf: conf{"ipSpoofChk": true}},
		"vlanTrunk":             {code: 7, conf: spoofChecked.with(conf{"vlanTrunk": []conf{{"id": 5}}})},
		"delegate fails":        {code: 11, conf: spoofChecked, setup: delegateAnswers(failure(11, "none left"))},
		"no address":            {code: 7, conf: spoofChecked, setup: delegateAnswers(behaviour{Stdout: `{"cniVersion":"1.1.0"}`})},
		"not a guest's address": {code: 7, conf: spoofChecked, setup: delegateAnswers(gives("0.0.0.0/0"))},
		"a group's address":     {code: 7, conf: spoofChecked, setup: delegateAnswers(gives("224.0.0.1/24"))},
		"result cannot be told": {conf: spoofChecked, full: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.ipam.on("ADD", dual())
			if f.setup != nil {
				f.setup(n)
			}
			n.unchanged(func() { n.strike(f) })
			n.noTable()
		})
	}
}

// Two pods that keep to their addresses reach each other in both families, and
// nobody under another one.
func TestGuardedPodsTalk(t *testing.T) {
	t.Parallel()
	n := newNode(t, conf{"mode": "veth"}, libvirt, conf{"macspoofchk": true})
	other := nstest.New(t)
	n.ipam.on("ADD", dual())
	n.call("ADD", n.conf(spoofChecked)).ok()
	n.ipam.on("ADD", behaviour{Stdout: `{"cniVersion":"1.1.0","ips":[{"address":"10.9.0.3/24"},{"address":"fd09::3/64"}]}`})
	n.call("ADD", n.conf(spoofChecked), of("other", "net1"), env{"CNI_NETNS": other.Path}).ok()
	for _, pod := range []*nstest.NS{n.pod, other} {
		pod.Run(t, "sh", "-ec", "for i in $(seq 500); do test -n \"$(ip -6 addr show tentative)\" || exit 0; sleep 0.02; done; exit 1")
	}
	for _, address := range []string{"10.9.0.3", "fd09::3"} {
		if seen := reaches(t, n.pod, other, address); seen == "" {
			t.Errorf("%s is not reached", address)
		}
	}
	n.pod.Run(t, "sh", "-ec", "ip addr del 10.9.0.2/24 dev net1; ip addr add 10.9.0.4/24 dev net1")
	if seen := reaches(t, n.pod, other, "10.9.0.3"); seen != "" {
		t.Errorf("a pod is heard as %s", seen)
	}
}
