package doctor

import (
	"slices"

	"github.com/tapbridge/tapbridge/pkg/attach"
)

// Examine looks at everything: the kernel, the node, the ports, and the bridge of
// that name; "" stands for every bridge that a port of ours is on.
func Examine(name string) ([]Finding, error) {
	found, err := Kernel()
	if err != nil {
		return nil, err
	}
	found = append(found, Tun(), netfilter())
	site, err := attach.Open()
	if err != nil {
		return nil, err
	}
	defer site.Close()
	names, err := bridges(site, name)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		found = append(found, note("bridges", "tapbridge has no port here, so no bridge was looked at", "tapbridge doctor BRIDGE"))
	}
	for _, name := range names {
		more, err := Bridge(site, name)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	ports, err := Ports(site)
	return append(found, ports...), err
}

func bridges(site *attach.Site, name string) (names []string, err error) {
	if name != "" {
		return []string{name}, nil
	}
	all, _, err := site.List()
	for _, a := range all {
		names = append(names, a.Bridge)
	}
	slices.Sort(names)
	return slices.Compact(names), err
}
