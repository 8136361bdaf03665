package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Key is one key of the configuration that tapbridge acts upon.
type Key struct{ Name, Type, Default, Effect string }

// Keys lists them all; the README shows the same table.
var Keys = []Key{
	{"bridge", "string", "required", "The bridge to join, in the plugin's own network namespace. An administrator's bridge is never changed."},
	{"createBridge", "bool", "false", "Make the bridge if it is missing: pinned MAC, the MTU of this configuration (else 1500), up, no forward delay, no IPv6 of its own; VLAN-aware with VLANs, and with libvirt where the kernel can. It stays."},
	{"mode", "tap, veth, host-tap", "tap", "What stands between bridge and VM: a veth pair and a tap in the pod, a veth pair alone, or the tap itself as the port."},
	{"macTableManager", "kernel, libvirt", "kernel", "kernel: the bridge learns and floods. libvirt: learning and unicast flood are off and the guest's MAC gets a forwarding entry."},
	{"fdb", "sticky, static, roaming, follow", "sticky", "With libvirt: the kind of that entry. It decides what happens during a live migration, see docs/macTable.md. follow needs the node agent, and a tap."},
	{"mac", "string", "computed", "The guest's MAC. Later sources win: CNI_ARGS MAC, args.cni.mac, runtimeConfig.mac. Without any: a stable one from container id and interface name."},
	{"mtu", "int, bytes", "the bridge's", "What the guest gets, 68 up to the bridge's MTU. The bridge port keeps the bridge's, so a small guest never lowers a shared bridge."},
	{"multiQueue", "bool", "false", "Make a multi-queue tap. Must be what the VMM asks for: the kernel refuses the other kind."},
	{"owner", "uid", "107", "Who may open the tap without CAP_NET_ADMIN. Owner and group must both match; -1 leaves one of them out. In mode tap an id of the pod's user namespace."},
	{"group", "gid", "107", "See owner."},
	{"macspoofchk", "bool", "false", "Drop frames whose source is not the guest's MAC (the port is locked). Needs libvirt with sticky, static or follow, and Linux 5.18."},
	{"ipSpoofChk", "bool", "false", "Drop what the guest sends under other MAC and IP addresses than its own, router advertisements, DHCP answers, VLAN tags and other protocols, by nftables. Needs ipam, not vlanTrunk. See SECURITY.md."},
	{"portIsolation", "bool", "false", "No frames between this port and other isolated ones."},
	{"hairpinMode", "bool", "false", "Frames may leave by the port they came in."},
	{"vlan", "int", "none", "The guest's VLAN, 1 to 4094: its untagged frames belong to it. Needs a VLAN-aware bridge."},
	{"vlanTrunk", "list", "none", "VLANs that the guest may tag itself: {\"id\": 5} or {\"minID\": 10, \"maxID\": 20}. Without vlan its untagged frames go nowhere."},
	{"preserveDefaultVlan", "bool", "false", "Stay in the bridge's default VLAN as well (the reference plugin's default is true)."},
	{"bandwidth", "object", "none", "Limits: ingressRate and egressRate in bit/s, ingressBurst and egressBurst in bits (up to 4 GiB), ingress being what the guest receives. The capability of that name gives the same."},
	{"ipam", "object", "none", "IPAM delegate. tap and host-tap: its addresses are the guest's and are only reported. veth: they are configured. dhcp in mode veth only."},
	{"isGateway", "bool", "false", "The bridge carries the guests' gateway (the delegate's, else the subnet's first address) and the node forwards. Only a bridge that tapbridge made is given it. Needs ipam."},
	{"isDefaultGateway", "bool", "false", "isGateway, and a default route by it unless the delegate gives one."},
	{"forceAddress", "bool", "false", "Replace addresses that are in the gateway's way, again only on a bridge that tapbridge made."},
	{"ipMasq", "bool", "false", "What the guest sends to other subnets gets the node's address, by nftables. Needs ipam, and the gateway's address on the bridge."},
	{"vmconf", "bool", "false", "Add to the result what firecracker-go-sdk reads: the tap, and the guest's NIC with its address. Needs mode tap, and ipam with one IPv4 address and a gateway."},
	{"dns", "object", "the delegate's", "DNS settings for the result."},
	{"dan", "bool", "false", "Describe the guest's NIC to Kata's runtime-rs, in /run/kata-containers/dans. Needs mode host-tap."},
	{"promote", "bool", "false", "Once the guest speaks, the node agent makes the tap itself the port, so that frames do not pass the veth pair; until then, and without an agent, nothing changes. Needs mode tap. See docs/agent.md."},
	{"selinuxContext", "string", "the plugin's own", "SELinux context that creates the tap: the kernel lets only contexts open it that the policy allows to. Needs a tap, and SELinux."},
}

func isOwn(key string) bool {
	return slices.ContainsFunc(Keys, func(k Key) bool { return k.Name == key })
}

// foreignKeys are put there by the specification, by runtimes and by Multus, for
// themselves or for the plugins of a chain.
var foreignKeys = []string{
	"cniVersion", "name", "type", "capabilities", "runtimeConfig", "args", "prevResult",
	"disableCheck", "disableGC", "deviceID", "pciBusID", "resourceName",
}

// foreignPrefix is reserved by the CNI specification for runtimes.
const foreignPrefix = "cni.dev/"

func isForeign(key string) bool {
	return slices.Contains(foreignKeys, key) || strings.HasPrefix(key, foreignPrefix)
}

// Reduced reports whether the configuration has nothing but what every network's
// has. Multus 4.3 leaves no more of a cluster network that is a list
// (LoadDelegateNetConfList), so it says nothing about the one that ADD is given.
func (h Header) Reduced() bool {
	for key := range h.object {
		if !isForeign(key) && key != "ipam" && key != "dns" {
			return false
		}
	}
	return true
}

// checkKeys refuses keys that nobody would act upon: a mistyped macTableManager
// must not leave a guest unprotected.
func (o object) checkKeys() error {
	for _, key := range slices.Sorted(maps.Keys(o)) {
		value := o[key]
		switch {
		case isOwn(key), isForeign(key):
		case key == "plugins":
			return fmt.Errorf("%w: key %q: this is a whole configuration list; a plugin gets one entry of it, with the list's name and cniVersion", ErrUnsupported, key)
		default:
			return fmt.Errorf("%w: key %q has value %s: tapbridge does not know it, %s", ErrUnsupported, key, brief(value), suggestion(key, names(), `see "tapbridge options"`))
		}
	}
	return nil
}

func names() (all []string) {
	for _, k := range Keys {
		all = append(all, k.Name)
	}
	return all
}

// capabilities are those of which something comes: by tapbridge itself, or by an IPAM
// delegate.
var capabilities = []string{"mac", "bandwidth", "ips", "ipRanges"}

// checkCapabilities refuses those that are nearly one of these. Whatever else is there
// may be for the runtime, or for others of the chain.
func (o object) checkCapabilities() error {
	var given object
	if err := o.read("capabilities", &given); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if err := json.Unmarshal(given[name], new(bool)); err != nil {
			return invalid("capabilities."+name, given[name], reason(err))
		}
		if near := suggestion(name, capabilities, ""); near != "" && !slices.Contains(capabilities, name) {
			return fmt.Errorf("%w: key %q has value %s: tapbridge does not know %q, %s", ErrUnsupported, "capabilities", brief(o["capabilities"]), name, near)
		}
	}
	return nil
}

// suggestion finds the name that was meant, if one is near.
func suggestion(name string, known []string, otherwise string) string {
	for _, k := range known {
		if strings.EqualFold(k, name) || nearly(k, name) {
			return fmt.Sprintf("did you mean %q?", k)
		}
	}
	return otherwise
}

// nearly reports whether b is a but for one letter too many, too few or wrong,
// or two that have changed places.
func nearly(a, b string) bool {
	start := 0
	for start < min(len(a), len(b)) && a[start] == b[start] {
		start++
	}
	a, b = a[start:], b[start:]
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return len(a) <= 1 && len(b) <= 1 || len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
}
