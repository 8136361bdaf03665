package attach

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// placed is a device of the attachment and where it is.
type placed struct {
	wanted *port.Device
	conn   *rtnl.Conn
	index  int
}

// dress gives the device its MAC, MTU and record in one message.
func (d placed) dress(got port.Device) error {
	var attrs []nl.NetlinkRequestData
	if got.MAC != d.wanted.MAC {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_ADDRESS, d.wanted.MAC.HardwareAddr()))
	}
	if got.MTU != d.wanted.MTU {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(d.wanted.MTU))))
	}
	if got.Record != d.wanted.Record {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(d.wanted.Record)))
	}
	if err := d.conn.SetLink(d.index, attrs...); err != nil {
		return fmt.Errorf("set MAC, MTU or alias of %q: %w", d.wanted.Name, err)
	}
	return nil
}

func undressed(want, got port.Device) bool {
	return want.MAC != got.MAC || want.MTU != got.MTU || want.Record != got.Record
}

func (d placed) mute() error { return d.conn.Mute(d.wanted.Name) }

// mostStripped bounds how long others wait for the lock: somebody in the pod may have
// written any number, and the kernel takes longer for each the more there are.
const mostStripped = 100

// strip takes away the addresses with which the kernel would answer in the guest's
// place. Of more than mostStripped the next comparison finds the rest.
func (d placed) strip() error {
	addresses, err := d.conn.AddressesOf(d.index)
	if err != nil {
		return err
	}
	for _, a := range addresses[:min(mostStripped, len(addresses))] {
		if err := d.conn.DeleteAddress(d.index, a); err != nil {
			return fmt.Errorf("delete address %s of %q: %w", a.IPNet, d.wanted.Name, err)
		}
	}
	return nil
}

func (d placed) setQueue() error {
	if err := d.wanted.Queue.Set(d.conn, d.index); err != nil {
		return fmt.Errorf("%q: %w", d.wanted.Name, err)
	}
	return nil
}

func (d placed) raise() error {
	if err := d.conn.SetUp(d.index); err != nil {
		return fmt.Errorf("set %q up: %w", d.wanted.Name, err)
	}
	return nil
}

func (d placed) lower() error {
	if err := d.conn.SetDown(d.index); err != nil {
		return fmt.Errorf("set %q down: %w", d.wanted.Name, err)
	}
	return nil
}
