package attach

import "github.com/tapbridge/tapbridge/internal/rtnl"

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

// seekAll is list, but a port that has only lost its record is not unrecorded, nor gone.
func seekAll(links []rtnl.Link) (all []Attached, unrecorded []rtnl.Link) {
	all, marked := list(links)
	gone := map[string]*Attached{} // by the port's name
	for i, a := range all {
		if a.Port.Index == 0 {
			gone[a.PortName()] = &all[i]
		}
	}
	for _, l := range marked {
		if a := gone[l.Name]; a != nil {
			a.Port = l
		} else {
			unrecorded = append(unrecorded, l)
		}
	}
	return all, unrecorded
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
