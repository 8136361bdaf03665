package attach

import (
	"github.com/tapbridge/tapbridge/pkg/address"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Address gives the pod interface of a standing attachment of mode veth its addresses
// and routes. They go with the interface.
func (s *Site) Address(ifName string, w address.Wish) error {
	return address.Configure(s.pod, ifName, w)
}

// Addressed compares them with what is there, and lists every difference in a
// *port.Drift.
func (s *Site) Addressed(id port.ID, w address.Wish) error {
	missing, err := address.Missing(s.pod, id.IfName, w)
	if err != nil || len(missing) == 0 {
		return err
	}
	d := &port.Drift{Port: id.PortName()}
	for _, what := range missing {
		d.Add(what)
	}
	return d
}
