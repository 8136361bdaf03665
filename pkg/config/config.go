// Package config turns what a runtime passes (the configuration on stdin,
// CNI_ARGS, runtimeConfig) into one validated value, and that into the decisions
// about an attachment. Every default lives here. It is pure: no kernel, no files.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// Header is the part of a configuration that every verb needs, also when the
// rest is missing or no longer valid.
type Header struct {
	CNIVersion string // "" when absent
	Name       string // of the network
	IPAM       string // the type of the IPAM delegate; "" for none

	object   object
	repeated string // a key that stands twice
}

// Config is a whole, valid configuration.
type Config struct {
	Header
	Bridge        string
	CreateBridge  bool
	Mode          port.Mode
	Table         port.Table
	MAC           mac.Addr // zero: none given
	MTU           int      // bytes; 0: the bridge's
	MultiQueue    bool
	Owner, Group  int64 // ids, or tap.Anyone
	MACSpoofCheck bool
	IPSpoofCheck  bool
	Isolation     bool
	Hairpin       bool
	VLANs         VLANs
	Bandwidth     Bandwidth
	Gateway       Gateway
	Promote       bool   // a node agent makes the tap the port once the guest speaks
	DAN           bool   // Kata's runtime-rs is told of the guest's NIC
	Label         string // SELinux context that creates the tap; "": the plugin's own
	VMConf        bool   // the result also describes tap and guest as firecracker-go-sdk reads them
	DNS           types.DNS
	PrevResult    *types100.Result // nil: none

	runtime object // runtimeConfig
	limits  limits
}

// manager is who keeps the bridge's MAC table, in libvirt's words.
type manager string

const (
	kernelManager  manager = "kernel"
	libvirtManager manager = "libvirt"
)

// Limits and defaults.
const (
	smallestMTU  = 68    // RFC 791; ETH_MIN_MTU
	largestMTU   = 65521 // of a tap (drivers/net/tun.c)
	DefaultOwner = 107   // KubeVirt's qemu
	DefaultGroup = 107
	largestID    = 1<<32 - 2 // -1 means "not set" to the kernel
)

// ParseHeader reads what DEL and GC need, and asks for no more than a JSON object:
// what else is wrong is for Parse to say. Error: ErrDecode.
func ParseHeader(stdin []byte) (Header, error) {
	o, repeated, err := parseObject(stdin)
	if err != nil {
		return Header{}, err
	}
	h := Header{object: o, repeated: repeated}
	if o.read("cniVersion", &h.CNIVersion) != nil {
		return h, fmt.Errorf("%w: key %q has value %s: want a string", ErrDecode, "cniVersion", brief(o["cniVersion"]))
	}
	var ipam types.IPAM
	if o.read("ipam", &ipam) == nil {
		h.IPAM = ipam.Type
	}
	_ = o.read("name", &h.Name)
	return h, nil
}

// CheckName refuses a network name that the CNI specification does not allow.
func (h Header) CheckName() error {
	if err := h.object.read("name", &h.Name); err != nil {
		return err
	}
	if h.Name == "" {
		return fmt.Errorf("%w: key %q is missing", ErrInvalid, "name")
	}
	if !IsName(h.Name) {
		return invalid("name", h.Name, NameRule)
	}
	return nil
}

// Parse reads the whole configuration and the MAC address among args, the value
// of CNI_ARGS. Errors: ErrDecode, ErrInvalid, ErrUnsupported, ErrArgs.
func (h Header) Parse(args string) (*Config, error) {
	if err := h.CheckName(); err != nil {
		return nil, err
	}
	if h.repeated != "" {
		return nil, fmt.Errorf("%w: key %q stands twice", ErrInvalid, h.repeated)
	}
	if err := h.object.checkKeys(); err != nil {
		return nil, err
	}
	if err := h.object.checkCapabilities(); err != nil {
		return nil, err
	}
	c := &Config{Header: h, Mode: port.Tap, Owner: DefaultOwner, Group: DefaultGroup}
	for _, read := range []func() error{c.readRuntime, c.readKeys, c.readDNS, c.readTable, c.readVLANs, c.readBandwidth, c.readIPAM, c.readGateway, c.readPrevResult} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	if err := c.readMAC(args); err != nil {
		return nil, err
	}
	return c, nil
}

// readKeys reads the keys that stand for themselves and checks their ranges.
func (c *Config) readKeys() error {
	for _, k := range []struct {
		name string
		into any
	}{
		{"bridge", &c.Bridge},
		{"createBridge", &c.CreateBridge},
		{"mode", &c.Mode},
		{"mtu", &c.MTU},
		{"multiQueue", &c.MultiQueue},
		{"owner", &c.Owner},
		{"group", &c.Group},
		{"macspoofchk", &c.MACSpoofCheck},
		{"ipSpoofChk", &c.IPSpoofCheck},
		{"portIsolation", &c.Isolation},
		{"hairpinMode", &c.Hairpin},
		{"vmconf", &c.VMConf},
		{"dan", &c.DAN},
		{"promote", &c.Promote},
		{"selinuxContext", &c.Label},
	} {
		if err := c.object.read(k.name, k.into); err != nil {
			return err
		}
	}
	if err := checkBridgeName(c.Bridge); err != nil {
		return err
	}
	if c.object.given("mtu") && (c.MTU < smallestMTU || c.MTU > largestMTU) {
		return invalid("mtu", c.MTU, fmt.Sprintf("want %d to %d", smallestMTU, largestMTU))
	}
	if err := c.checkMode(); err != nil {
		return err
	}
	return c.checkAccess()
}

func checkBridgeName(name string) error {
	if name == "" {
		return fmt.Errorf("%w: key %q is missing: name the bridge to join", ErrInvalid, "bridge")
	}
	if err := CheckInterfaceName(name); err != nil {
		return invalid("bridge", name, err.Error())
	}
	return nil
}

func (c *Config) checkMode() error {
	for _, o := range []struct {
		key string
		on  bool
	}{{"vmconf", c.VMConf}, {"promote", c.Promote}} {
		if o.on && c.Mode != port.Tap {
			return invalid(o.key, true, fmt.Sprintf("it needs mode %q: there is no tap in the pod in mode %q", port.Tap, c.Mode))
		}
	}
	if c.DAN && c.Mode != port.HostTap {
		return invalid("dan", true, fmt.Sprintf("it needs mode %q: Kata opens such a tap in the host's namespace", port.HostTap))
	}
	if err := c.checkLabel(); err != nil {
		return err
	}
	switch c.Mode {
	case port.Tap, port.HostTap:
		return nil
	case port.Veth:
		for _, key := range []string{"owner", "group", "multiQueue", "selinuxContext"} {
			if c.object.given(key) {
				return invalid(key, c.object[key], `there is no tap in mode "veth"`)
			}
		}
		c.Owner, c.Group = tap.Anyone, tap.Anyone
		return nil
	}
	return invalid("mode", string(c.Mode), fmt.Sprintf("want one of %q", port.Modes))
}

// checkLabel leaves it to the policy in the kernel which contexts there are.
func (c *Config) checkLabel() error {
	bad := func(r rune) bool { return r <= ' ' || r == 0x7f }
	if c.object.given("selinuxContext") && (c.Label == "" || strings.ContainsFunc(c.Label, bad)) {
		return invalid("selinuxContext", c.Label, "want a context such as system_u:system_r:container_t:s0")
	}
	return nil
}

func (c *Config) checkAccess() error {
	if err := errors.Join(checkID("owner", c.Owner), checkID("group", c.Group)); err != nil {
		return err
	}
	if c.Mode != port.Veth && c.Owner == tap.Anyone && c.Group == tap.Anyone {
		return invalid("owner", c.Owner, `with "group" -1 as well everybody could open the tap`)
	}
	return nil
}

func checkID(key string, id int64) error {
	if id < tap.Anyone || id > largestID {
		return invalid(key, id, fmt.Sprintf("want an id from 0 to %d, or -1 to leave the condition out", int64(largestID)))
	}
	return nil
}

// entries are the tables that "fdb" chooses from.
var entries = []port.Table{port.Sticky, port.Static, port.Roaming, port.Follow}

// readTable reads the keys about the MAC table, which depend on each other.
func (c *Config) readTable() error {
	who, how := kernelManager, string(port.Sticky)
	if err := c.object.read("macTableManager", &who); err != nil {
		return err
	}
	if err := c.object.read("fdb", &how); err != nil {
		return err
	}
	switch {
	case who != kernelManager && who != libvirtManager:
		return invalid("macTableManager", string(who), fmt.Sprintf("want one of %q", []manager{kernelManager, libvirtManager}))
	case who == kernelManager && c.object.given("fdb"):
		return invalid("fdb", how, `it needs "macTableManager": "libvirt"`)
	case !slices.Contains(entries, port.Table(how)):
		return invalid("fdb", how, fmt.Sprintf("want one of %q", entries))
	case port.Table(how) == port.Follow && c.Mode == port.Veth:
		return invalid("fdb", how, `it needs a tap, whose carrier tells whether the VM is there: not mode "veth"`)
	}
	c.Table = port.Table(how)
	if who == kernelManager {
		c.Table = port.Kernel
	}
	if c.MACSpoofCheck && (c.Table == port.Kernel || c.Table == port.Roaming) {
		return invalid("macspoofchk", true, `it needs "macTableManager": "libvirt" with "fdb": "sticky", "static" or "follow"`)
	}
	return nil
}

// readRuntime reads what the runtime sends for the capabilities.
func (c *Config) readRuntime() error { return c.object.read("runtimeConfig", &c.runtime) }

func (c *Config) readIPAM() error {
	if err := c.object.read("ipam", &types.IPAM{}); err != nil {
		return err
	}
	if c.IPAM == "" && c.object.given("ipam") && string(c.object["ipam"]) != "{}" {
		return invalid("ipam", c.object["ipam"], `"type" is missing`)
	}
	if strings.Contains(c.IPAM, "/") {
		return invalid("ipam", c.object["ipam"], `"type": want the name of a plugin in CNI_PATH`)
	}
	if err := c.checkIPs(); err != nil {
		return err
	}
	if c.IPAM == "" && c.VMConf {
		return invalid("vmconf", true, `it needs "ipam" for the guest's address`)
	}
	if c.IPAM == "" && c.IPSpoofCheck {
		return invalid("ipSpoofChk", true, `it needs "ipam" for the guest's addresses`)
	}
	if c.IPSpoofCheck && len(c.VLANs.Trunk) > 0 {
		return invalid("ipSpoofChk", true, `with "vlanTrunk" the guest has addresses in networks that "ipam" does not know`)
	}
	if c.IPAM == "dhcp" && c.Mode != port.Veth {
		return invalid("ipam", c.object["ipam"], fmt.Sprintf(`type "dhcp" needs mode "veth": in mode %q the guest asks the DHCP server itself`, c.Mode))
	}
	return nil
}

// checkIPs refuses addresses that a runtime asks for and no delegate gives. How they are
// written is the delegate's business.
func (c *Config) checkIPs() error {
	if ips := c.runtime["ips"]; c.IPAM == "" && c.runtime.given("ips") && string(ips) != "[]" {
		return invalid("runtimeConfig.ips", ips, `it needs "ipam": nobody else gives the guest an address`)
	}
	return nil
}

func (c *Config) readPrevResult() error {
	raw := types.PluginConf{CNIVersion: c.CNIVersion}
	if err := c.object.read("prevResult", &raw.RawPrevResult); err != nil || raw.RawPrevResult == nil {
		return err
	}
	err := version.ParsePrevResult(&raw)
	if err == nil {
		c.PrevResult, err = usable(raw.PrevResult)
	}
	if err != nil {
		return invalid("prevResult", c.object["prevResult"], reason(err))
	}
	return nil
}

func usable(r types.Result) (*types100.Result, error) {
	if err := CheckLists(r); err != nil {
		return nil, err
	}
	converted, err := types100.NewResultFromResult(r)
	if err != nil {
		return nil, err
	}
	return converted, checkIndexes(converted)
}

// Attachments reads the valid attachments of a GC request from both keys that
// runtimes use. known is false when neither is there: nothing may be removed
// then.
func (h Header) Attachments() (valid []port.ID, known bool, err error) {
	for _, key := range []string{"cni.dev/valid-attachments", "cni.dev/attachments"} {
		value, there := h.object[key]
		if !there {
			continue
		}
		known = true
		var list []types.GCAttachment
		if err := json.Unmarshal(value, &list); err != nil {
			return nil, false, invalid(key, value, reason(err))
		}
		for _, a := range list {
			if a.ContainerID == "" || a.IfName == "" { // another format: to keep nothing would remove everything
				return nil, false, invalid(key, value, `want "containerID" and "ifname" in each`)
			}
			valid = append(valid, port.ID{ContainerID: a.ContainerID, IfName: a.IfName})
		}
	}
	return valid, known, nil
}
