package port

import (
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/dan"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/redirect"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// Device is one device of an attachment.
type Device struct {
	Name  string
	Kind  string // of link
	MAC   mac.Addr
	MTU   int // bytes
	Up    bool
	Muted bool // IPv6 is disabled: the kernel sends nothing of its own through it

	Queue     *shape.Queue // at its egress; nil: anybody's affair
	Addresses string       // that a mute device in the pod should not have
	Record    string       // its ifalias
}

// Port is the port of one attachment, as it should be or as it is: one type for
// both, so that Diff can compare whatever we can want. A nil part is one that
// the mode does not have, or that is missing.
type Port struct {
	Name     string         // of the device that is the bridge port
	End      *Device        // that device: a veth end, or the tap in mode host-tap
	Bridge   bridge.Port    // its membership
	FDB      []fdb.Entry    // of the guest's MAC address, one a VLAN; none with Kernel
	Pod      *Device        // CNI_IFNAME
	Tap      *Device        // the tap in the pod
	Access   *tap.Access    // who may open the tap, wherever it is
	Redirect *redirect.Pair // between Pod and Tap
	IFB      *Device        // through which the guest's frames go where they are limited
	Diverted bool           // they do: from the port's ingress to IFB
	Guard    *guard.Guard   // what the guest may speak as; its addresses only the caller knows
	Idle     *Device        // the veth end, while the tap is the port in its place
	Held     bool           // a VMM has the tap open; wanted and looked for of a promoted tap only
	DAN      *dan.NIC       // how the guest's NIC is described to Kata; addresses and routes only the caller knows
}

// Want works out the whole port from what was decided: every name, address and
// flag. Nothing after this chooses. With the table Follow it is the port that waits.
func (a Attachment) Want() Port {
	p := Port{Name: a.PortName(), Bridge: a.membership(), FDB: a.entries()}
	p.End = &Device{Name: p.Name, Kind: a.PortKind(), MAC: a.Guest.Derived(), MTU: a.PortMTU, Up: true, Muted: true, Record: a.Record()}
	if a.Mode == HostTap || a.ToGuest != (shape.Limit{}) { // a veth end has no queue of its own
		p.End.Queue = queue(a.ToGuest)
	}
	if a.Mode != HostTap {
		p.Pod = &Device{Name: a.IfName, Kind: redirect.Kind, MAC: a.Guest, MTU: a.MTU, Up: true, Muted: a.Mode == Tap, Record: a.Record()}
	}
	if a.Mode == Tap {
		p.Tap = &Device{Name: a.TapName(), Kind: tap.Kind, MAC: a.Guest.Derived(), MTU: a.MTU, Up: true, Muted: true, Queue: queue(shape.Limit{}), Record: a.Record()}
		both := redirect.Both
		p.Redirect = &both
	}
	if a.Mode != Veth {
		access := a.Access
		p.Access = &access
	}
	if a.FromGuest != (shape.Limit{}) {
		p.IFB = &Device{Name: a.IFBName(), Kind: shape.Kind, MAC: a.Guest.Derived(), MTU: a.PortMTU, Up: true, Muted: true, Queue: queue(a.FromGuest), Record: a.Record()}
		p.Diverted = true
	}
	if a.Guarded {
		g := guard.Of(a.Guest)
		p.Guard = &g
	}
	if a.DAN {
		p.DAN = &dan.NIC{Sandbox: a.ContainerID, Tap: p.Name, Name: a.IfName, MAC: a.Guest, MTU: a.MTU}
	}
	return p
}

func queue(l shape.Limit) *shape.Queue {
	q := l.Queue()
	return &q
}

// PortKind is the kind of link of the port, by which it is told from a tap that stands
// beside it while that is promoted.
func (a Attachment) PortKind() string {
	if a.Mode == HostTap {
		return tap.Kind
	}
	return redirect.Kind
}

func (a Attachment) membership() bridge.Port {
	return bridge.Port{
		Bridge:         a.Bridge,
		Learning:       a.Table == Kernel || a.Table == Roaming || a.Table == Follow && !a.Locked,
		UnicastFlood:   a.Table == Kernel,
		MulticastFlood: true,
		BroadcastFlood: true,
		Isolated:       a.Isolated,
		Hairpin:        a.Hairpin,
		Locked:         a.Locked,
		BPDUGuard:      a.Table != Kernel || a.Guarded,
		VLANs:          a.VLANs,
	}
}

// entries are never local ones: the bridge would keep the guest's frames to
// itself.
func (a Attachment) entries() (entries []fdb.Entry) {
	if a.Table == Kernel {
		return nil
	}
	for _, id := range a.VLANs.IDs() {
		if a.Table == Follow {
			entries = append(entries, fdb.Entry{MAC: a.Guest, VLAN: id, State: fdb.None})
			continue
		}
		e := fdb.Entry{MAC: a.Guest, VLAN: id, Port: a.PortName(), State: fdb.Static, Sticky: a.Table == Sticky}
		if a.Table == Roaming {
			e.State = fdb.Roaming
		}
		entries = append(entries, e)
	}
	return entries
}
