package conformance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// Whatever fails, addresses, sysctls and rules are as before.
func TestGatewayFailureLeavesNothing(t *testing.T) {
	for name, f := range map[string]fault{
		"no nft":                       {code: 50, conf: masq, mask: "mount --bind /dev/null " + nftPath(t)},
		"nft fails":                    {code: 50, conf: masq, mask: "mount --bind /bin/false " + nftPath(t)},
		"rules cannot be made":         {conf: masq, mask: failingNFT(t)},
		"/run is read-only":            {conf: masq, mask: "mount -t tmpfs -o ro none /run"},
		"/proc/sys is read-only":       {conf: masq, mask: "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"},
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

func nftPath(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("nft")
	if err != nil {
		nstest.Skip(t, "no nft: %v", err)
	}
	return path
}

// failingNFT is for an nft that answers to what changes nothing, and then fails.
func failingNFT(t *testing.T) string {
	t.Helper()
	path := nftPath(t)
	script := filepath.Join(t.TempDir(), "nft")
	text := "#!/bin/sh\ncase \"$*\" in '-f -') echo no >&2; exit 1;; esac\nexec \"$(dirname \"$0\")/real\" \"$@\"\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join(filepath.Dir(script), "real"), binary, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "export PATH=" + filepath.Dir(script) + ":$PATH"
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

// An ADD that is killed at any moment leaves nothing that DEL does not remove, not
// even by an nft that has survived it.
func TestGatewayKilledADD(t *testing.T) {
	t.Parallel()
	tracer := strace(t)
	n := newNode(t)
	n.ipam.on("ADD", dual())
	n.call("ADD", n.conf(masq)).ok() // with the bridge and the sysctls as they will stay
	n.call("DEL", n.conf(masq)).ok()
	before, killed := n.world(), 0
	for call, last := range map[string]int{"waitid": 12, "sendto": 40, "fcntl": 40} {
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
