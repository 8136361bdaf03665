package port

import (
	"fmt"

	"github.com/tapbridge/tapbridge/pkg/tap"
)

// WantPromoted is the whole port while the tap is promoted: the tap is the port, as
// in mode host-tap, with all that Want asks of the veth end. That end stays where it
// is, a port of the bridge with its flags, but down: nothing passes it, and its
// record and name are what DEL and GC go by. With the table Follow the guest runs: a
// tap whose VMM has gone is put back.
func (a Attachment) WantPromoted() Port {
	p := a.Want()
	idle := *p.End
	idle.Up, idle.Queue = false, nil
	p.Name = a.PromotedName()
	p.End = &Device{Name: p.Name, Kind: tap.Kind, MAC: idle.MAC, MTU: a.PortMTU, Up: true, Muted: true, Queue: queue(a.ToGuest), Record: idle.Record}
	for i := range p.FDB {
		p.FDB[i].Port = p.Name
	}
	p.Tap, p.Redirect = nil, nil
	p.Idle, p.Held = &idle, true
	if p.Waits() {
		return p.Running()
	}
	return p
}

// promoted tells a tap apart that should be in the pod again, because the next VMM
// looks for it there.
func (d *Drift) promoted(want, got Port) {
	d.device("veth end", want.Idle, got.Idle)
	if got.End != nil && want.Held != got.Held {
		const unheld = "no VMM has it open, want it in the pod"
		d.Differences = append(d.Differences, Difference{fmt.Sprintf("tap %q: %s", want.Name, unheld), "tap " + unheld})
	}
}
