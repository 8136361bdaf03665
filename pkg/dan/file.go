package dan

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tapbridge/tapbridge/pkg/mac"
)

// file is what a sandbox's file says. Keys and devices of others are carried as
// they are.
type file struct {
	keys    map[string]json.RawMessage // without devices
	devices []json.RawMessage
}

// The structs are those that runtime-rs reads with serde
// (crates/resource/src/network/dan.rs): DanDevice, Device::HostTap,
// NetworkInfo, Interface, Route, ARPNeighbor. Lists must not be null.
type device struct {
	Name        string      `json:"name"`
	GuestMAC    string      `json:"guest_mac"`
	Device      hostTap     `json:"device"`
	NetworkInfo networkInfo `json:"network_info"`
}

// hostTap leaves the number of queues and of their entries to the runtime's own
// configuration, by 0: nobody tells a CNI plugin what stands there.
type hostTap struct {
	Type      string `json:"type"`
	TapName   string `json:"tap_name"`
	QueueNum  int    `json:"queue_num"`
	QueueSize int    `json:"queue_size"`
}

type networkInfo struct {
	Interface guest      `json:"interface"`
	Routes    []route    `json:"routes"`
	Neighbors []struct{} `json:"neighbors"`
}

type guest struct {
	IPAddresses []string `json:"ip_addresses"`
	MTU         int      `json:"mtu"`
	Type        string   `json:"ntype"`
	Flags       int      `json:"flags"`
}

type route struct {
	Dest    string `json:"dest"`
	Gateway string `json:"gateway"`
	Source  string `json:"source"`
	Scope   int    `json:"scope"`
	Flags   int    `json:"flags"`
	MTU     int    `json:"mtu"`
}

// kind is the only one of runtime-rs' device types that a tap of the host can
// be.
const kind = "host-tap"

// parse reads a file; one that is not there yet has no content.
func parse(content []byte) (*file, error) {
	f := &file{keys: map[string]json.RawMessage{"netns": json.RawMessage("null")}}
	if content == nil {
		return f, nil
	}
	if err := json.Unmarshal(content, &f.keys); err != nil {
		return nil, err
	}
	if list, there := f.keys["devices"]; there {
		if err := json.Unmarshal(list, &f.devices); err != nil {
			return nil, err
		}
	}
	delete(f.keys, "devices")
	return f, nil
}

func (f *file) text() []byte {
	all := map[string]any{"devices": f.devices}
	for key, value := range f.keys {
		all[key] = value
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		panic(err) // every part has been JSON before
	}
	return append(text, '\n')
}

func (f *file) count() int { return len(f.devices) }

// label is the part of a device that tells which it is; of a device of another
// type, or that is no device at all, what there is of it.
type label struct {
	Name   string
	Device struct {
		Type    string
		TapName string `json:"tap_name"`
	}
}

func labelOf(raw json.RawMessage) (l label) {
	_ = json.Unmarshal(raw, &l) // what is no device has no label
	return l
}

func (l label) of(tap string) bool { return l.Device.Type == kind && l.Device.TapName == tap }

// put refuses where the runtime would not find the tap, or would give two NICs
// of one name to the guest.
func (f *file) put(n NIC) error {
	f.drop(n.Tap)
	if netns := string(f.keys["netns"]); netns != "null" && netns != `""` && netns != "" {
		return fmt.Errorf("its devices are in the network namespace %s, the tap %q is in the host's", netns, n.Tap)
	}
	for _, raw := range f.devices {
		if labelOf(raw).Name == n.Name {
			return fmt.Errorf("it has another device of the name %q", n.Name)
		}
	}
	raw, err := json.Marshal(n.device())
	f.devices = append(f.devices, raw)
	return err
}

// drop reports whether there was a device of the tap.
func (f *file) drop(tap string) bool {
	before := f.count()
	f.devices = slices.DeleteFunc(f.devices, func(raw json.RawMessage) bool { return labelOf(raw).of(tap) })
	return f.count() < before
}

// find is the NIC of the tap as it is described.
func (f *file) find(sandbox, tap string) *NIC {
	for _, raw := range f.devices {
		var d device
		if !labelOf(raw).of(tap) {
			continue
		}
		_ = json.Unmarshal(raw, &d) // a value of another type is none, which will be seen
		return d.nic(sandbox)
	}
	return nil
}

func (n NIC) device() device {
	d := device{
		Name: n.Name, GuestMAC: n.MAC.String(), Device: hostTap{Type: kind, TapName: n.Tap},
		NetworkInfo: networkInfo{
			Interface: guest{IPAddresses: append([]string{}, n.Addresses...), MTU: n.MTU, Type: "tuntap"},
			Routes:    []route{}, Neighbors: []struct{}{},
		},
	}
	for _, r := range n.Routes {
		d.NetworkInfo.Routes = append(d.NetworkInfo.Routes, route{Dest: r.Dest, Gateway: r.Gateway, Scope: r.Scope, MTU: r.MTU})
	}
	return d
}

func (d device) nic(sandbox string) *NIC {
	n := &NIC{Sandbox: sandbox, Tap: d.Device.TapName, Name: d.Name, MTU: d.NetworkInfo.Interface.MTU, Addresses: d.NetworkInfo.Interface.IPAddresses}
	n.MAC, _ = mac.Parse(d.GuestMAC) // zero is none
	for _, r := range d.NetworkInfo.Routes {
		n.Routes = append(n.Routes, Route{Dest: r.Dest, Gateway: r.Gateway, Scope: r.Scope, MTU: r.MTU})
	}
	return n
}
