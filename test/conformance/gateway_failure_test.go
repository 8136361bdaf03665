package conformance

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// Whatever fails, addresses, sysctls and rules are as before.
func TestGatewayFailureLeavesNothing(t *testing.T) {
	for name, f := range map[string]fault{
		"/run is read-only":            {code: 50, conf: masq, mask: readOnly["/run"]},
		"/proc/sys is read-only":       {code: 50, conf: masq, mask: readOnly["/proc/sys"]},
		"no forwarding":                {conf: masq, mask: "mount --bind /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_forward; mount -o remount,bind,ro /proc/sys/net/ipv4/ip_forward"},
		"result cannot be told":        {conf: masq, full: true},
		"route from advertisements":    {code: 7, conf: masq, setup: onHost("ip link add ra0 type bridge\nip link set ra0 up\nip -6 route add default dev ra0 proto ra")},
		"gateway is the guest":         {code: 7, conf: masq, setup: delegateAnswers(gives("10.9.0.1/24"))},
		"gateway of a /32":             {code: 7, conf: masq, setup: delegateAnswers(gives("10.9.0.2/32"))},
		"no address":                   {code: 7, conf: masq, setup: delegateAnswers(behaviour{Stdout: `{"cniVersion":"1.1.0"}`})},
		"gateway of another subnet":    {code: 7, conf: masq, setup: delegateAnswers(behaviour{Stdout: `{"cniVersion":"1.1.0","ips":[{"address":"10.9.0.2/24","gateway":"10.8.0.1"}]}`})},
		"the bridge has another":       {code: 7, conf: masq, setup: made("ip addr add 10.8.0.1/24 dev br1")},
		"bridge is there, cannot tell": {conf: masq, full: true, setup: made("true")},
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
			if verbs := n.ipam.verbs(); len(verbs) > 0 && verbs[len(verbs)-1] != "DEL" {
				t.Errorf("the delegate was left with %q", verbs)
			}
		})
	}
}

// made lets tapbridge create br1, and then somebody do something.
func made(lines string) func(n *node) {
	return func(n *node) {
		n.call("ADD", n.conf(newBridge)).ok()
		n.call("DEL", n.conf(newBridge)).ok()
		n.sh(n.host, nil, lines)
	}
}

// A table of that name that is not as ours stops the first ADD, before anything is
// made; nft itself is not needed.
func TestGatewayOthersTable(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ipam.on("ADD", dual())
	n.host.Run(t, "nft", "add table inet tapbridge; add chain inet tapbridge from_guests { type filter hook forward priority 0; }")
	n.unchanged(func() { n.call("ADD", n.conf(masq)).fails(50, "nftables") })
	if verbs := n.ipam.verbs(); len(verbs) != 0 {
		t.Errorf("the delegate was called: %q", verbs)
	}
	n.host.Run(t, "nft", "delete table inet tapbridge")
	n.call("ADD", n.conf(masq), env{"PATH": "/nowhere"}).ok()
	n.call("DEL", n.conf(masq), env{"PATH": "/nowhere"}).silent()
	n.noTable()
}

// What cannot come true is refused by the name of its key.
func TestGatewayRefusals(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.unchanged(func() {
		for _, c := range []struct {
			key  string
			conf conf
		}{
			{"isGateway", newBridge.with(conf{"isGateway": true})},
			{"isDefaultGateway", newBridge.with(conf{"isDefaultGateway": true})},
			{"ipMasq", newBridge.with(conf{"ipMasq": true})},
			{"forceAddress", newBridge.with(recording, conf{"forceAddress": true})},
			{"ipMasq", newBridge.with(recording, conf{"ipMasq": true})},
			{"isGateway", router.with(conf{"vlan": 42})},
			{"isGateway", router.with(conf{"vlanTrunk": []any{conf{"id": 42}}})},
			{"isGateway", router.with(conf{"mode": "veth", "ipam": conf{"type": "dhcp"}})},
			{"isGateway", router.with(conf{"isGateway": "yes"})},
			{"ipMasq", router.with(conf{"ipMasq": 1})},
		} {
			n.call("ADD", n.conf(c.conf)).fails(7, fmt.Sprintf("key %q", c.key))
		}
	})
	if verbs := n.ipam.verbs(); len(verbs) != 0 {
		t.Errorf("the delegate was called: %q", verbs)
	}
}

// An ADD that is killed at any moment leaves nothing that DEL does not remove.
func TestGatewayKilledADD(t *testing.T) {
	t.Parallel()
	tracer := strace(t)
	n := newNode(t)
	n.ipam.on("ADD", dual())
	n.call("ADD", n.conf(masq)).ok() // with the bridge and the sysctls as they will stay
	n.call("DEL", n.conf(masq)).ok()
	before, killed := n.world(), 0
	for call, last := range map[string]int{"sendto": 56, "write": 28, "fcntl": 28} {
		for nth := 1; nth <= last; nth += 1 + last/14 {
			if a, _ := n.prepare("ADD", n.conf(masq)).struck(tracer, call, "signal=SIGKILL", nth); a.code != 0 {
				killed++
			}
			n.call("DEL", conf{"name": "lan", "type": "tapbridge"}).silent()
			n.noTable()
		}
	}
	t.Logf("%d ADDs were killed", killed)
	if n.same(before); killed < 5 {
		t.Errorf("only %d ADDs were killed", killed)
	}
}

// Attachments that come and go at the same time do not take each other's rules.
func TestGatewayInParallel(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	const pods = 6
	done := make(chan error, pods)
	var callers []*caller
	for i := range pods {
		ns := nstest.New(t)
		e := env{"CNI_CONTAINERID": fmt.Sprintf("c%d", i), "CNI_NETNS": ns.Path}
		callers = append(callers, n.prepare("ADD", n.conf(masq), e), n.prepare("DEL", n.conf(masq), e))
	}
	for i := range pods {
		go func() {
			for range 3 {
				if a := callers[2*i].run(); a.code != 0 {
					done <- errors.New(a.stdout)
					return
				}
				if a := callers[2*i+1].run(); a.code != 0 {
					done <- errors.New(a.stdout)
					return
				}
			}
			done <- nil
		}()
	}
	for range pods {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	n.noTable()
	n.wantAddresses("br1", "10.9.0.1/24")
}
