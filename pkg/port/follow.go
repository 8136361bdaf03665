package port

import (
	"slices"

	"github.com/tapbridge/tapbridge/pkg/fdb"
)

// A port with the table Follow is right in two states, and in nothing between
// them. It waits, as ADD leaves it: no entry for the guest, so that its frames go
// where it speaks; the port learns, unless it is locked. Or its guest runs: then it
// is as with Sticky. The node agent takes it from one to the other.

// Waits reports whether p is a wanted port in the first of them.
func (p Port) Waits() bool { return len(p.FDB) > 0 && p.FDB[0].State == fdb.None }

// Running is p, which waits, as it is when its guest runs.
func (p Port) Running() Port {
	p.Bridge.Learning = false
	p.FDB = slices.Clone(p.FDB)
	for i := range p.FDB {
		p.FDB[i].Port, p.FDB[i].State, p.FDB[i].Sticky = p.Name, fdb.Static, true
	}
	return p
}

// Like is the state of p, a wanted port, that got is in or nearer to: where there
// are two, the guest's entry decides. A port that has lost it waits: the guest's
// next frame brings it back, while an entry made too early would cut off a guest
// that still runs on another node.
func (p Port) Like(got Port) Port {
	if p.Waits() && got.Entered() {
		return p.Running()
	}
	return p
}

// Entered reports whether the observed port p has an entry that was written for its
// guest.
func (p Port) Entered() bool {
	return slices.ContainsFunc(p.FDB, func(e fdb.Entry) bool { return e.State == fdb.Static && e.Port == p.Name })
}

// Heard reports whether the bridge has learned the guest's address on the observed
// port p.
func (p Port) Heard() bool {
	return slices.ContainsFunc(p.FDB, func(e fdb.Entry) bool { return e.State == fdb.Learned && e.Port == p.Name })
}
