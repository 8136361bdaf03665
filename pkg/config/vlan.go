package config

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tapbridge/tapbridge/internal/shell"
	"github.com/tapbridge/tapbridge/pkg/bridge"
)

// VLANs is what a configuration says about the port's VLANs.
type VLANs struct {
	Access      uint16        // untagged frames belong to it; 0: none
	Trunk       []bridge.VLAN // tagged, without Access
	KeepDefault bool          // the port stays in the bridge's default VLAN
}

// Given reports whether the configuration says anything.
func (v VLANs) Given() bool { return v.Access != 0 || len(v.Trunk) > 0 }

// readVLANs reads the keys about VLANs, which are those of the reference bridge
// plugin. They differ in one default: a port leaves the default VLAN unless asked
// to stay, since an access port that also gets VLAN 1 is not isolated.
func (c *Config) readVLANs() error {
	var access int
	if err := c.object.read("vlan", &access); err != nil {
		return err
	}
	if c.object.given("vlan") && !isVLAN(access) {
		return invalid("vlan", access, fmt.Sprintf("want 1 to %d", bridge.MaxVLAN))
	}
	c.VLANs.Access = uint16(access)
	if err := c.readTrunk(); err != nil {
		return err
	}
	if err := c.object.read("preserveDefaultVlan", &c.VLANs.KeepDefault); err != nil {
		return err
	}
	if c.VLANs.KeepDefault && !c.VLANs.Given() {
		return invalid("preserveDefaultVlan", true, `it needs "vlan" or "vlanTrunk": without them the port stays in the default VLAN anyway`)
	}
	return nil
}

func isVLAN(id int) bool { return id >= 1 && id <= bridge.MaxVLAN }

func (c *Config) readTrunk() error {
	var items []json.RawMessage
	if err := c.object.read("vlanTrunk", &items); err != nil {
		return err
	}
	for _, item := range items {
		v, err := trunkItem(item)
		if err != nil {
			return err
		}
		for _, other := range append(slices.Clone(c.VLANs.Trunk), bridge.VLAN{First: c.VLANs.Access, Last: c.VLANs.Access}) {
			if v.First <= other.Last && other.First <= v.Last {
				return invalid("vlanTrunk", item, fmt.Sprintf("it overlaps with VLAN %s", other))
			}
		}
		c.VLANs.Trunk = append(c.VLANs.Trunk, v)
	}
	return nil
}

// trunkItem reads {"id": 5} or {"minID": 10, "maxID": 20}.
func trunkItem(item json.RawMessage) (bridge.VLAN, error) {
	var o object
	if err := json.Unmarshal(item, &o); err != nil || o == nil {
		return bridge.VLAN{}, invalid("vlanTrunk", item, `want {"id": N} or {"minID": N, "maxID": N}`)
	}
	ids := map[string]int{}
	for key, value := range o {
		var id int
		if err := json.Unmarshal(value, &id); err != nil || !isVLAN(id) || !slices.Contains([]string{"id", "minID", "maxID"}, key) {
			return bridge.VLAN{}, invalid("vlanTrunk", item, fmt.Sprintf(`want "id", or "minID" and "maxID", from 1 to %d`, bridge.MaxVLAN))
		}
		ids[key] = id
	}
	first, last := ids["minID"], ids["maxID"]
	if id := ids["id"]; id != 0 && len(ids) == 1 {
		first, last = id, id
	} else if id != 0 || first == 0 || last < first {
		return bridge.VLAN{}, invalid("vlanTrunk", item, `want "id" alone, or "minID" and a "maxID" that is not smaller`)
	}
	return bridge.VLAN{First: uint16(first), Last: uint16(last)}, nil
}

// on works out the VLANs of a port on bridge br. ErrInvalid when the bridge cannot
// have any.
func (v VLANs) on(br bridge.Bridge) (bridge.VLANs, error) {
	if !br.VLANAware {
		if v.Given() {
			return "", v.refused(fmt.Sprintf("bridge %q is not VLAN-aware: ip link set %s type bridge vlan_filtering 1", br.Name, shell.Word(br.Name)))
		}
		return "", nil
	}
	ranges := v.ranges()
	if (v.KeepDefault || !v.Given()) && br.DefaultPVID != 0 && !covered(ranges, br.DefaultPVID) {
		ranges = append(ranges, bridge.VLAN{First: br.DefaultPVID, Last: br.DefaultPVID, PVID: v.Access == 0, Untagged: true})
	}
	if len(ranges) == 0 {
		return "", fmt.Errorf(`%w: bridge %q is VLAN-aware and has no default VLAN: "vlan" or "vlanTrunk" is needed`, ErrInvalid, br.Name)
	}
	return bridge.NewVLANs(ranges...), nil
}

// refused names the key that asks for VLANs.
func (v VLANs) refused(because string) error {
	if v.Access != 0 {
		return invalid("vlan", v.Access, because)
	}
	return invalid("vlanTrunk", string(bridge.NewVLANs(v.Trunk...)), because)
}

func covered(ranges []bridge.VLAN, id uint16) bool {
	return slices.ContainsFunc(ranges, func(v bridge.VLAN) bool { return v.First <= id && id <= v.Last })
}

func (v VLANs) ranges() []bridge.VLAN {
	ranges := slices.Clone(v.Trunk)
	if v.Access != 0 {
		ranges = append(ranges, bridge.VLAN{First: v.Access, Last: v.Access, PVID: true, Untagged: true})
	}
	return ranges
}
