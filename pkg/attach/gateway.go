package attach

import (
	"errors"
	"fmt"

	"github.com/tapbridge/tapbridge/internal/shell"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/gateway"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// MayServe refuses what Serve could not do, as far as that can be told before the
// guest has its address. Errors: gateway.ErrUnsupported, gateway.ErrAddress.
func (s *Site) MayServe(br bridge.Bridge, assign, masquerade bool) error {
	if masquerade {
		if err := gateway.Masquerading(); err != nil {
			return err
		}
	}
	if br.Index == 0 || br.Made && assign {
		return nil
	}
	has, err := gateway.Has(s.host, deviceOf(br))
	if err != nil || has {
		return err
	}
	return fmt.Errorf("%w: bridge %q has no address, and is given none (it was not made by tapbridge, or isGateway is not set): ip addr add GATEWAY/PREFIX dev %s",
		gateway.ErrAddress, br.Name, shell.Word(br.Name))
}

// Serve makes the node the gateway of a standing attachment and calls then. If
// that or anything before it fails, all is taken back. Errors: ErrBusy,
// gateway.ErrAddress, and what the kernel says.
func (s *Site) Serve(a port.Attachment, w gateway.Wish, then func() error) error {
	unlock, err := lock(gatewayLock)
	if err != nil {
		return err
	}
	defer unlock()
	br, err := bridge.Find(s.host, a.Bridge)
	if err != nil {
		return err
	}
	return run(s.serving(a, br, w, then))
}

// serving are the steps; forwarding, which concerns the whole node, is the last.
func (s *Site) serving(a port.Attachment, br bridge.Bridge, w gateway.Wish, then func() error) []step {
	var addresses, forwarding gateway.Undo
	steps := []step{{
		"give the bridge the gateway's address",
		func() error { return gateway.Assign(s.host, deviceOf(br), w, &addresses) },
		addresses.Run,
	}}
	if len(w.Masquerade) > 0 {
		steps = append(steps, step{
			"masquerade",
			func() error { return gateway.Masquerade(owner(a), w.Masquerade) },
			func() error { return gateway.Unmasquerade(owner(a)) },
		})
	}
	return append(steps, step{
		"let the node forward",
		func() error { return gateway.Forward(s.host, w, &forwarding) },
		forwarding.Run,
	}, step{name: "finish", do: then})
}

// Served compares what Serve did with what is there, and lists every difference
// in a *port.Drift.
func (s *Site) Served(a port.Attachment, w gateway.Wish) error {
	br, err := bridge.Find(s.host, a.Bridge)
	if errors.Is(err, bridge.ErrNotFound) {
		return nil // the comparison of the port says so
	}
	if err != nil {
		return err
	}
	d := &port.Drift{Port: a.PortName()}
	missing, err := gateway.Missing(s.host, deviceOf(br), w)
	for _, p := range missing {
		d.Add(fmt.Sprintf("gateway %s is missing on bridge %s", p, br.Name))
	}
	unmasked, unmaskedErr := gateway.Unmasked(owner(a), w.Masquerade)
	for _, p := range unmasked {
		d.Add(fmt.Sprintf("masquerade rule of %s is missing", p.Addr()))
	}
	off, offErr := gateway.Forwards(w)
	if off != "" {
		d.Add(fmt.Sprintf("%s is off, want on", off))
	}
	if err := errors.Join(err, unmaskedErr, offErr); err != nil || len(d.Differences) == 0 {
		return err
	}
	return d
}

// unmasquerade removes the attachment's masquerade rules.
func (r *removal) unmasquerade() error {
	if r.record != nil && !r.record.Masquerade {
		return nil
	}
	return exclusively(gatewayLock, func() error { return gateway.Unmasquerade(gateway.Owner{Port: r.id.PortName()}) })
}

// unmasqueradeOthers removes the network's rules but for those of the valid
// attachments: with the pod's namespace a port can have gone without its rules.
func (s *Site) unmasqueradeOthers(network string, valid []port.ID) error {
	keep := make([]gateway.Owner, len(valid))
	for i, id := range valid {
		keep[i] = gateway.Owner{Port: id.PortName()}
	}
	return exclusively(gatewayLock, func() error { return gateway.UnmasqueradeOthers(network, keep) })
}

// owner is whose rules are those of a. The port's name stands for the container
// id, which a record may have hashed.
func owner(a port.Attachment) gateway.Owner {
	return gateway.Owner{Port: a.PortName(), Network: a.Network}
}

func deviceOf(br bridge.Bridge) gateway.Device {
	return gateway.Device{Name: br.Name, Index: br.Index, Ours: br.Made}
}
