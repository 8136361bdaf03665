package config

import (
	"fmt"
	"slices"

	"github.com/tapbridge/tapbridge/pkg/port"
)

// promotable are the tables whose entry can move to the tap with all else.
var promotable = []port.Table{port.Kernel, port.Sticky, port.Static, port.Roaming}

// checkPromote refuses what would not hold once the tap is the port.
func (c *Config) checkPromote() error {
	switch {
	case !c.Promote:
		return nil
	case c.Mode != port.Tap:
		return invalid("promote", true, fmt.Sprintf("it needs mode %q: there is no tap in the pod in mode %q", port.Tap, c.Mode))
	case c.IPSpoofCheck:
		return invalid("promote", true, `not with "ipSpoofChk", whose rules know the veth end only`)
	case !slices.Contains(promotable, c.Table):
		return invalid("promote", true, fmt.Sprintf(`not with "fdb": %q`, c.Table))
	}
	return nil
}
