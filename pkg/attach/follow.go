package attach

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// State is in which of its two states a port with the table Follow is.
type State string

// The states; "" for ports that have one.
const (
	Awaited State = "waiting" // the guest has no entry: it has not spoken here, or its VMM has gone
	Running State = "running" // it has
)

// Stance is how a port with the table Follow stands.
type Stance struct {
	Running bool // it has its guest's entry
	Heard   bool // the bridge has learned the guest's address on it
	Carrier bool // a VMM has the tap open
}

// Stance reads it, without the lock, of a port that has just been seen. The zero
// value stands for one that is on no bridge: there is nothing to do about it. There is
// neither about a promoted tap, whose entry goes when it is put back.
func (s *Site) Stance(p Attached) (st Stance, err error) {
	if p.Port.MasterIndex == 0 {
		return st, nil
	}
	if _, there, err := s.promoted(p.Attachment); err != nil || there {
		return Stance{Running: true, Carrier: true}, err
	}
	got := port.Port{Name: p.Port.Name}
	if got.FDB, err = s.entries(p.Want().FDB, p.Port); err != nil {
		return st, err
	}
	st.Running, st.Heard = got.Entered(), got.Heard()
	st.Carrier, err = s.hasVMM(p)
	return st, err
}

// hasVMM asks the tap.
func (s *Site) hasVMM(p Attached) (bool, error) {
	if p.Mode == port.HostTap {
		return p.Port.Carrier(), nil
	}
	tap, err := s.tapInPod(p)
	return err == nil && tap.Carrier(), ignoreMissing(err)
}

// tapInPod is the tap of mode tap, without entering the pod.
func (s *Site) tapInPod(p Attached) (rtnl.Link, error) {
	if p.Port.NetNsID < 0 { // the pod has the host's network
		return s.host.LinkNamed(p.TapName())
	}
	return s.host.Behind(p.Port.NetNsID).LinkNamed(p.TapName())
}

// Activate takes a port that waits to where its guest runs: the entry is written,
// then what the port has learned is forgotten: in this order no frame is lost, and a
// process that is killed leaves what Repair completes. Nothing is done without a VMM.
// Errors: ErrBusy, ErrTaken.
func (s *Site) Activate(p Attached) (acted bool, err error) {
	return s.following(p, func(r *repairs, st Stance) error {
		if st.Running || !st.Carrier {
			return nil
		}
		learns := r.want.Bridge.Learning
		r.want = r.want.Running()
		return r.run(
			fix{true, r.reclaimEntry},
			fix{learns, r.setFlags},
			fix{learns, func() error { return bridge.Flush(r.host, r.port) }})
	})
}

// Withdraw takes a port whose VMM has gone back to where it waits. Error: ErrBusy.
func (s *Site) Withdraw(p Attached) (acted bool, err error) {
	return s.following(p, func(r *repairs, st Stance) error {
		if !st.Running || st.Carrier {
			return nil
		}
		return r.run(fix{true, r.removeEntries}, fix{r.want.Bridge.Learning, r.setFlags})
	})
}

// following calls f under the lock if the port is still there, and one of its bridge.
func (s *Site) following(p Attached, f func(*repairs, Stance) error) (acted bool, err error) {
	unlock, err := lockWithin(p.Bridge, repairWait)
	if err != nil {
		return false, err
	}
	defer unlock()
	p, there, err := s.Seek(p)
	if err != nil || !there {
		return false, err
	}
	r := newRepair(s, p, HostSide)
	r.br, err = bridge.Find(s.host, p.Bridge)
	if errors.Is(err, bridge.ErrNotFound) || errors.Is(err, bridge.ErrNotBridge) || err == nil && r.br.Index != p.Port.MasterIndex {
		return false, nil // for Repair
	}
	if err != nil {
		return false, err
	}
	st, err := s.Stance(p)
	if err == nil {
		err = f(r, st)
	}
	return r.acted, ignoreMissing(err)
}

// removeEntries leaves it to the kernel to find those in each VLAN that the port
// has.
func (r *repairs) removeEntries() error {
	for _, e := range append([]fdb.Entry{{MAC: r.a.Guest}}, r.want.FDB...) {
		if err := fdb.Delete(r.host, r.port, e); err != nil {
			return fmt.Errorf("port %q: %w", r.want.Name, err)
		}
	}
	return nil
}

// strayed reports whether a guest that is waited for has an entry on another port.
func (r *repairs) strayed() bool {
	return slices.ContainsFunc(r.got.FDB, func(e fdb.Entry) bool { return e.State == fdb.Static })
}

// removeStray takes the entry of a guest that is waited for from a port to which
// somebody has written it.
func (r *repairs) removeStray() error { return r.removeMovedEntries(r.a, r.br.Index) }
