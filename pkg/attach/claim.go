package attach

import (
	"fmt"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// claim refuses a guest whose addresses would cut somebody off: two guests of
// one MAC address, a guest with the address of a port or of the bridge, a port
// with the address of a guest. The bridge's own database is the index that makes
// this independent of the number of ports: every port's address is a local entry
// in it, and a port's address gives its guest's away but for the first byte.
func (w *work) claim() error {
	guest, derived := w.a.Guest, w.a.Guest.Derived()
	if guest == w.br.MAC || derived == w.br.MAC {
		return fmt.Errorf("guest MAC %s: bridge %q itself has MAC %s: %w", guest, w.br.Name, w.br.MAC, ErrTaken)
	}
	for _, m := range []mac.Addr{guest, derived, derived.Derived()} {
		if err := w.claimIn(0, m); err != nil {
			return err
		}
	}
	if w.a.VLANs == "" {
		return nil
	}
	for _, vlan := range w.a.VLANs.IDs() { // a stranger's entry may be in one VLAN only
		if err := w.claimIn(vlan, guest); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) claimIn(vlan uint16, m mac.Addr) error {
	found, there, err := fdb.Lookup(w.host, w.br.Index, m, vlan)
	if err != nil {
		return fmt.Errorf("bridge %q: %w", w.br.Name, err)
	}
	if !there || found.State == fdb.Learned {
		return nil // a learned entry claims nothing: anybody's frame makes one
	}
	return w.heldBy(found)
}

// heldBy decides about one entry that sits firmly.
func (w *work) heldBy(found fdb.Found) error {
	holder, err := w.host.LinkAt(found.Index)
	if rtnl.IsNotExist(err) {
		return nil // gone with its entry
	}
	if err != nil {
		return err
	}
	if err := w.conflict(holder); err != nil {
		return err
	}
	if found.MAC == w.a.Guest && found.MAC == holder.MAC() {
		return fmt.Errorf("guest MAC %s is that of %q on bridge %q: give the guest another one: %w", w.a.Guest, holder.Name, w.br.Name, ErrTaken)
	}
	if found.MAC == w.a.Guest || found.State == fdb.Static && found.MAC == w.a.Guest.Derived() {
		return fmt.Errorf("MAC %s of guest %s: %q on bridge %q has a %s entry for it: %w",
			found.MAC, w.a.Guest, holder.Name, w.br.Name, found.State, ErrTaken)
	}
	// Another guest shares the last five bytes with ours, and so the address of
	// its port, or a stranger's port has that address: the entry can hide a third
	// one.
	return w.conflictOnAnyPort()
}

func (w *work) conflictOnAnyPort() error {
	ports, err := w.host.LinksOf(w.br.Index)
	if err != nil {
		return err
	}
	for _, l := range ports {
		if err := w.conflict(l); err != nil {
			return err
		}
	}
	return nil
}

// conflict compares our guest with the guest of another port of ours.
func (w *work) conflict(l rtnl.Link) error {
	other, err := port.ParseRecord(l.Alias)
	if err != nil || w.a.Promote && other.Is(w.a.ID) { // its tap, or its veth end
		return nil
	}
	owner := fmt.Sprintf("container %s, interface %q, network %q (port %q on bridge %q)",
		other.ContainerID, other.IfName, other.Network, l.Name, w.br.Name)
	switch guest := w.a.Guest; {
	case other.Guest == guest:
		return fmt.Errorf("guest MAC %s belongs to %s: %w", guest, owner, ErrTaken)
	case other.Guest.Derived() == guest:
		return fmt.Errorf("guest MAC %s is that of the port of %s: %w", guest, owner, ErrTaken)
	case other.Guest == guest.Derived():
		return fmt.Errorf("the port of guest MAC %s would get %s, the guest MAC of %s: %w", guest, other.Guest, owner, ErrTaken)
	}
	return nil
}
