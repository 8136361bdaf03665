package main

import (
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

// asked is what a port was asked to have, as the configuration's keys of the same
// names say it.
type asked struct {
	MACTable      string      `json:"macTableManager"`
	FDB           *port.Table `json:"fdb"` // null: kernel has none
	MultiQueue    bool        `json:"multiQueue"`
	Owner         *int64      `json:"owner"` // on the node, also where the pod's user namespace has another id for it; null: no tap
	Group         *int64      `json:"group"`
	MACSpoofCheck bool        `json:"macspoofchk"`
	IPSpoofCheck  bool        `json:"ipSpoofChk"`
	Isolation     bool        `json:"portIsolation"`
	Hairpin       bool        `json:"hairpinMode"`
	VLAN          *uint16     `json:"vlan"`      // null: untagged frames go nowhere, or the bridge is not VLAN-aware
	Trunk         []trunk     `json:"vlanTrunk"` // what the guest may tag
	KeepDefault   bool        `json:"preserveDefaultVlan"`
	Bandwidth     *bandwidth  `json:"bandwidth"` // null: no limit
	DAN           bool        `json:"dan"`
	Promote       bool        `json:"promote"`
	Masquerade    bool        `json:"ipMasq"`
}

// trunk is one VLAN, or a range.
type trunk struct {
	ID    uint16 `json:"id,omitempty"`
	MinID uint16 `json:"minID,omitempty"`
	MaxID uint16 `json:"maxID,omitempty"`
}

// bandwidth is in bits; zeros stand for a direction without a limit.
type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate"` // per second; what the guest receives
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

func askedOf(a port.Attachment) asked {
	all := asked{
		MACSpoofCheck: a.Locked, IPSpoofCheck: a.Guarded, Isolation: a.Isolated, Hairpin: a.Hairpin,
		Trunk: []trunk{}, DAN: a.DAN, Promote: a.Promote, MultiQueue: a.Access.MultiQueue, Masquerade: a.Masquerade,
	}
	switch a.Table {
	case port.Kernel:
		all.MACTable = "kernel"
	case port.Sticky, port.Static, port.Roaming, port.Follow:
		all.MACTable, all.FDB = "libvirt", &a.Table
	}
	if a.Mode == port.Tap || a.Mode == port.HostTap {
		all.Owner, all.Group = &a.Access.Owner, &a.Access.Group
	}
	ranges, _ := a.VLANs.Ranges() // a record with others is none (port.ParseRecord)
	for _, v := range ranges {
		all.add(v)
	}
	if in, out := a.ToGuest, a.FromGuest; in != (shape.Limit{}) || out != (shape.Limit{}) {
		all.Bandwidth = &bandwidth{in.Rate * 8, in.Burst * 8, out.Rate * 8, out.Burst * 8}
	}
	return all
}

// add takes the one that frames leave untagged, but that is not the guest's, for the
// bridge's default VLAN: no other key asks for that.
func (a *asked) add(v bridge.VLAN) {
	switch {
	case v.PVID:
		a.VLAN = &v.First
	case v.Untagged:
		a.KeepDefault = true
	case v.First == v.Last:
		a.Trunk = append(a.Trunk, trunk{ID: v.First})
	default:
		a.Trunk = append(a.Trunk, trunk{MinID: v.First, MaxID: v.Last})
	}
}
