package attach

import (
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// ours reports whether l was made for the attachment id. Its record says so, or
// name and group do, which no two attachments share, whatever somebody has written
// over the record.
func ours(l rtnl.Link, id port.ID) bool {
	if l.Kind != redirect.Kind && l.Kind != tap.Kind && l.Kind != shape.Kind {
		return false // a pod can copy an alias to any device, its loopback too
	}
	if a, err := port.ParseRecord(l.Alias); err == nil && a.Is(id) {
		return true
	}
	return l.Group == id.Group() && (l.Name == id.PortName() || l.Name == id.IFBName() || l.Name == id.PromotedName() || l.Name == id.IfName || l.Name == id.TapName())
}

// belonging are the links that were made for the attachment.
func belonging(links []rtnl.Link, id port.ID) (mine []rtnl.Link) {
	for _, l := range links {
		if ours(l, id) {
			mine = append(mine, l)
		}
	}
	return mine
}

// portOf finds the attachment's port: by its name, and where that is not to be
// found by record and group, in case somebody has renamed it.
func (s *Site) portOf(id port.ID) (rtnl.Link, bool, error) {
	end, there, err := find(s.host, id.PortName())
	if err != nil || there && ours(end, id) {
		return end, there, err
	}
	links, err := s.host.Links()
	for _, l := range links {
		if a, noRecord := port.ParseRecord(l.Alias); noRecord == nil && a.Is(id) && ours(l, id) && l.Kind == a.PortKind() && renamed(l, id) {
			return l, true, nil
		}
	}
	return rtnl.Link{}, false, err
}

// renamed tells a port that somebody has given another name. (Where the pod's
// namespace is the host's, the devices there bear the record as well.)
func renamed(l rtnl.Link, id port.ID) bool {
	return l.Group == id.Group() && l.Name != id.IfName && l.Name != id.TapName()
}

// recorded reads the attachment that l is the port of, whatever its name.
func recorded(l rtnl.Link) (port.Attachment, bool) {
	a, err := port.ParseRecord(l.Alias)
	return a, err == nil && l.Kind == a.PortKind() && (l.Name == a.PortName() || l.Group == a.Group())
}

func isTap(l rtnl.Link) bool { return l.Kind == tap.Kind }

func isVeth(l rtnl.Link) bool { return l.Kind == redirect.Kind }
