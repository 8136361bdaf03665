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

// Survey is SeekAll, and a Site whose Compare of a port's host side knows links and
// guards from the same look. What it calls a difference may have ended since; Repair and Confirm
// look again. It uses the connections of s.
func (s *Site) Survey() (*Site, []Attached, []rtnl.Link, error) {
	links, err := s.host.Links()
	if err != nil {
		return nil, nil, nil, err
	}
	look := &Site{host: s.host, survey: newSurvey(links)}
	all, unrecorded, err := look.seekIn(links)
	return look, all, unrecorded, err
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
