package plugin

import (
	"fmt"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// mayFollow refuses a guest that would be mute: only the node agent admits it to a
// port that is locked and has no entry yet. Without the lock the bridge learns the
// guest in the meantime, and it is enough to say so.
func (r *request) mayFollow(c *config.Config) error {
	if c.Table != port.Follow {
		return nil
	}
	followed, err := attach.AgentRuns()
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errUnavailable, err)
	case followed:
		return nil
	case c.MACSpoofCheck:
		return fmt.Errorf(`%w: "fdb": "follow" with "macspoofchk": no tapbridge-agent runs in this network namespace, and nobody else admits a guest to a locked port: start it`, errUnavailable)
	}
	fmt.Fprintf(r.stderr, `tapbridge: %s: "fdb": "follow": no tapbridge-agent runs in this network namespace: nobody follows the guests of network %q, which the bridge only learns`+"\n", r.command, c.Name)
	return nil
}
