package attach

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/dan"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// Observe reads from the kernel everything that want speaks of, and changes
// nothing. What is missing is nil in the answer, not an error.
func (s *Site) Observe(want port.Port) (port.Port, error) {
	got := port.Port{Name: want.Name}
	if err := s.observeHost(want, &got); err != nil {
		return port.Port{}, fmt.Errorf("observe port %q: %w", want.Name, err)
	}
	if want.DAN != nil {
		var err error
		if got.DAN, err = dan.Kata.Read(want.DAN.Sandbox, want.DAN.Tap); err != nil {
			return port.Port{}, err
		}
	}
	if want.Pod == nil {
		return got, nil
	}
	if err := s.observePod(want, &got); err != nil {
		return port.Port{}, fmt.Errorf("observe pod interface %q: %w", want.Pod.Name, err)
	}
	return got, nil
}

func (s *Site) observeHost(want port.Port, got *port.Port) error {
	end, there, err := s.find(want.End.Name)
	if err != nil || !there {
		return err
	}
	if got.End, err = device(s.host, end, want.End); err != nil {
		return err
	}
	if want.Tap == nil && want.Access != nil {
		got.Access = access(end)
	}
	if err := s.observeIdle(want, got, end); err != nil {
		return err
	}
	if err := s.observeIFB(want, got, end); err != nil {
		return err
	}
	if err := s.observeGuard(want, got); err != nil {
		return err
	}
	master, err := s.master(end)
	if err != nil {
		return err
	}
	got.Bridge = bridge.Observe(end, master)
	if end.MasterIndex == 0 {
		return nil
	}
	if got.Bridge.VLANs, err = bridge.ReadVLANs(s.host, end.Index, bridge.Of(master)); err != nil {
		return err
	}
	got.FDB, err = s.entries(want.FDB, end)
	return err
}

// observeIFB looks for the device through which what comes in at end should go.
func (s *Site) observeIFB(want port.Port, got *port.Port, end rtnl.Link) error {
	if want.IFB == nil {
		return nil
	}
	ifb, there, err := s.find(want.IFB.Name)
	if err != nil || !there {
		return err
	}
	if got.IFB, err = device(s.host, ifb, want.IFB); err != nil {
		return err
	}
	got.Diverted, err = redirect.Passes(s.host, end.Index, ifb.Index)
	return err
}

// master is the device that l is a port of; without a name when there is none.
func (s *Site) master(l rtnl.Link) (rtnl.Link, error) {
	if l.MasterIndex == 0 {
		return rtnl.Link{}, nil
	}
	return s.at(l.MasterIndex)
}

// entries are where the bridge of end sends frames for the guest.
func (s *Site) entries(want []fdb.Entry, end rtnl.Link) (got []fdb.Entry, err error) {
	for _, w := range want {
		found, there, err := fdb.Lookup(s.host, end.MasterIndex, w.MAC, w.VLAN)
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		found.Port = end.Name
		if found.Index != end.Index {
			other, err := s.at(found.Index)
			if err != nil {
				return nil, err
			}
			found.Port = other.Name
		}
		got = append(got, found.Entry)
	}
	return got, nil
}

// observePod also looks for addresses on the devices of a VM: with one, the pod's
// stack would answer in the guest's place.
func (s *Site) observePod(want port.Port, got *port.Port) error {
	inner, there, err := find(s.pod, want.Pod.Name)
	if err != nil {
		return err
	}
	if there {
		if got.Pod, err = device(s.pod, inner, want.Pod); err != nil {
			return err
		}
	}
	if want.Tap == nil {
		return nil
	}
	addresses, err := s.pod.Addresses()
	if err != nil {
		return err
	}
	if there {
		got.Pod.Addresses = inWords(addresses[inner.Index])
	}
	t, tapThere, err := find(s.pod, want.Tap.Name)
	if err != nil || !tapThere {
		return err
	}
	got.Access = access(t)
	if got.Tap, err = device(s.pod, t, want.Tap); err != nil {
		return err
	}
	got.Tap.Addresses = inWords(addresses[t.Index])
	if !there {
		return nil
	}
	pair, err := redirect.Observe(s.pod, t.Index, inner.Index)
	got.Redirect = &pair
	return err
}

// inWords names a few: there can be thousands.
func inWords(addresses []netip.Prefix) string {
	const few = 10
	var words []string
	for _, a := range addresses[:min(few, len(addresses))] {
		words = append(words, a.String())
	}
	if more := len(addresses) - few; more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(words, " ")
}

func find(c *rtnl.Conn, name string) (rtnl.Link, bool, error) {
	l, err := c.LinkNamed(name)
	if rtnl.IsNotExist(err) {
		return rtnl.Link{}, false, nil
	}
	return l, err == nil, err
}

// device describes l. Whether it is muted, and its queue, are read only where that
// is wanted: otherwise they are the pod's own affair.
func device(c *rtnl.Conn, l rtnl.Link, want *port.Device) (d *port.Device, err error) {
	d = &port.Device{Name: l.Name, Kind: l.Kind, MAC: l.MAC(), MTU: l.MTU, Up: l.Up(), Muted: want.Muted && l.Muted, Record: l.Alias}
	if want.Queue == nil {
		return d, nil
	}
	queue, err := shape.Observe(c, l, *want.Queue)
	d.Queue = &queue
	return d, err
}

func access(l rtnl.Link) *tap.Access {
	a, ok := tap.AccessOf(l)
	if !ok {
		return nil
	}
	return &a
}
