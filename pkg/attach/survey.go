package attach

import (
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// survey is what one dump has told of all links: asking for each port's and its
// bridge's would take most of the time that comparing five hundred of them takes.
type survey struct {
	named map[string]rtnl.Link
	at    map[int]rtnl.Link
}

func newSurvey(links []rtnl.Link) *survey {
	s := &survey{map[string]rtnl.Link{}, map[int]rtnl.Link{}}
	for _, l := range links {
		s.named[l.Name], s.at[l.Index] = l, l
	}
	return s
}

// Survey finds the attachments as List does, and those as well whose port has been given
// another alias where the ifb or the promoted tap still has the record. The Compare of look
// knows the host's links and guards from the same look. What it calls a difference may have
// ended since; Repair and Confirm look again. It uses the connections of s.
func (s *Site) Survey() (look *Site, all []Attached, unrecorded []rtnl.Link, err error) {
	links, err := s.host.Links()
	if err != nil {
		return nil, nil, nil, err
	}
	look = &Site{host: s.host, survey: newSurvey(links)}
	all, unrecorded = seekAll(links)
	return look, all, unrecorded, look.seeGuards(all)
}

func seekAll(links []rtnl.Link) (all []Attached, unrecorded []rtnl.Link) {
	listed, marked := list(links)
	found := map[string]bool{}
	for _, l := range marked {
		if a, there := recordedBeside(links, l.Name); there {
			all, found[l.Name] = append(all, Attached{Attachment: a, Port: l}), true
		} else {
			unrecorded = append(unrecorded, l)
		}
	}
	for _, a := range listed {
		if !found[a.PortName()] { // the ifb is not an orphan
			all = append(all, a)
		}
	}
	return all, unrecorded
}

func recordedBeside(links []rtnl.Link, portName string) (port.Attachment, bool) {
	for _, l := range links {
		a, err := port.ParseRecord(l.Alias)
		if err == nil && (l.Name == a.IFBName() || l.Name == a.PromotedName()) && a.PortName() == portName && ours(l, a.ID) {
			return a, true
		}
	}
	return port.Attachment{}, false
}

// find looks for a device on the host.
func (s *Site) find(name string) (rtnl.Link, bool, error) {
	if s.survey == nil {
		return find(s.host, name)
	}
	l, there := s.survey.named[name]
	return l, there, nil
}

// at is the device of that index on the host; without a name when there is none.
func (s *Site) at(index int) (rtnl.Link, error) {
	if s.survey == nil {
		l, err := s.host.LinkAt(index)
		return l, ignoreMissing(err)
	}
	return s.survey.at[index], nil
}
