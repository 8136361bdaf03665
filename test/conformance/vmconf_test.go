package conformance

import (
	"net"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/firecracker-microvm/firecracker-go-sdk/cni/vmconf"
)

// fixed gives the guest one address, by the reference plugin `static`.
func fixed(addresses ...conf) conf {
	return conf{"ipam": conf{"type": "static", "addresses": addresses, "dns": conf{"nameservers": []string{"10.1.1.53"}}}}
}

// firecracker-go-sdk reads from the result all that its guest needs.
func TestVMConf(t *testing.T) {
	t.Parallel()
	n := newNode(t, conf{"vmconf": true, "mac": guestMAC, "mtu": 1400}, fixed(conf{"address": "10.1.1.2/24", "gateway": "10.1.1.1"}))
	n.unchanged(func() {
		added := n.call("ADD", n.conf()).ok()
		result := &types100.Result{}
		added.decode(result)
		got, err := vmconf.StaticNetworkConfFrom(result, "c1")
		if err != nil {
			t.Fatalf("the SDK refuses the result: %v\n%s", err, added.stdout)
		}
		if got.TapName != "tap1" || got.NetNSPath != n.pod.Path || got.VMMacAddr != guestMAC || got.VMMTU != 1400 {
			t.Errorf("the SDK reads tap %q in %q, guest MAC %q, MTU %d", got.TapName, got.NetNSPath, got.VMMacAddr, got.VMMTU)
		}
		if want := "10.1.1.2::10.1.1.1:255.255.255.0:::off:10.1.1.53::"; got.IPBootParam() != want {
			t.Errorf("the SDK boots with ip=%s, want %s", got.IPBootParam(), want)
		}
		n.call("CHECK", n.conf(added.prev())).silent()
		n.call("DEL", n.conf(added.prev())).ok()
	})
}

// What the SDK could not use is refused, and leaves nothing.
func TestVMConfRefuses(t *testing.T) {
	t.Parallel()
	n := newNode(t, conf{"vmconf": true})
	v6 := conf{"address": net.ParseIP("fd00::2").String() + "/64", "gateway": "fd00::1"}
	v4 := conf{"address": "10.1.1.2/24", "gateway": "10.1.1.1"}
	n.unchanged(func() {
		for given, addresses := range map[string][]conf{
			"fd00::2/64 via fd00::1":                           {v6},
			"10.1.1.2/24 via 10.1.1.1, fd00::2/64 via fd00::1": {v4, v6},
			"10.1.1.2/24": {{"address": "10.1.1.2/24"}},
		} {
			n.call("ADD", n.conf(fixed(addresses...))).fails(7, "it gave "+given+`: "vmconf" wants one IPv4 address with a gateway`)
		}
	})
}
