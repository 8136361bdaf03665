package config

import (
	"fmt"

	"github.com/tapbridge/tapbridge/internal/shell"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// NewBridge is the bridge that createBridge makes when there is none. It is
// VLAN-aware where the kernel can filter VLANs and macTableManager is libvirt: only
// then can the bridge take its uplink out of promiscuous mode. With VLANs given it
// is planned so in any case, and cannot be made where the kernel cannot.
func (c *Config) NewBridge(canFilter bool) bridge.Bridge {
	mtu := c.MTU
	if mtu == 0 {
		mtu = bridge.DefaultMTU
	}
	aware := c.VLANs.Given() || canFilter && c.Table != port.Kernel
	return bridge.Bridge{Name: c.Bridge, MTU: mtu, VLANAware: aware, DefaultPVID: bridge.DefaultPVID}
}

// Plan decides everything about one attachment to bridge br. ErrInvalid when the
// configuration does not fit the bridge or the interface name.
func (c *Config) Plan(id port.ID, br bridge.Bridge) (port.Attachment, error) {
	a := port.Attachment{
		ID:         id,
		Network:    c.Name,
		Bridge:     br.Name,
		Mode:       c.Mode,
		Table:      c.Table,
		Guest:      c.MAC,
		MTU:        c.MTU,
		PortMTU:    br.MTU,
		Options:    port.Options{Isolated: c.Isolation, Hairpin: c.Hairpin, Locked: c.MACSpoofCheck, Guarded: c.IPSpoofCheck, DAN: c.DAN, Promote: c.Promote},
		Access:     tap.Access{Owner: c.Owner, Group: c.Group, MultiQueue: c.MultiQueue},
		Label:      c.Label,
		Masquerade: c.Gateway.Masquerade,

		ToGuest: c.Bandwidth.ToGuest, FromGuest: c.Bandwidth.FromGuest,
	}
	vlans, err := c.VLANs.on(br)
	if err != nil {
		return port.Attachment{}, err
	}
	a.VLANs = vlans
	if a.Guest.IsZero() {
		a.Guest = mac.Stable(id.ContainerID, id.IfName)
	}
	if a.MTU == 0 {
		a.MTU = br.MTU
	}
	if a.MTU > br.MTU {
		return port.Attachment{}, invalid("mtu", c.MTU, fmt.Sprintf("bridge %q has MTU %d: lower the one, or raise the other (ip link set %s mtu %d)", br.Name, br.MTU, shell.Word(br.Name), c.MTU))
	}
	if err := c.checkBursts(a); err != nil {
		return port.Attachment{}, err
	}
	if c.Mode == port.Tap && id.TapName() == id.IfName {
		return port.Attachment{}, fmt.Errorf("%w: CNI_IFNAME %q is the name that its own tap gets in mode %q", ErrInvalid, id.IfName, c.Mode)
	}
	if a.DAN && !a.KeepsID() {
		return port.Attachment{}, invalid("dan", true, fmt.Sprintf("the id of container %s is too long to find its file again by the record on the port", id.ContainerID))
	}
	if len(a.Record()) > port.LongestRecord {
		return port.Attachment{}, invalid("vlanTrunk", string(a.VLANs), fmt.Sprintf("too many ranges: the record on the port has room for %d bytes in all", port.LongestRecord))
	}
	return a, nil
}
