package agent

import (
	"log/slog"
	"time"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// about is the log of one side of a port.
func (k *keeper) about(p attach.Attached, side attach.Side) *slog.Logger {
	return k.Log.With("port", p.PortName(), "side", side, "bridge", p.Bridge, "network", p.Network, "container", p.ContainerID, "interface", p.IfName)
}

// report says once what is wrong and stays so.
func (k *keeper) report(p attach.Attached, side attach.Side, found port.Differences, err error, more ...any) {
	text := found.String()
	if err != nil {
		text += "\n" + err.Error()
	}
	s := k.stateOf(part{p.PortName(), side})
	if text == s.said {
		return
	}
	s.said = text
	log := k.about(p, side).With("differences", found).With(more...)
	if err != nil {
		log = log.With("error", err)
	}
	if k.ObserveOnly && err == nil {
		log.Warn("not as it should be")
	} else {
		k.Metrics.unrepairable.WithLabelValues(string(side)).Inc()
		log.Warn("cannot be repaired")
	}
	k.leaveAlone(p, side, s.disturbed([]string{reports}, time.Now()), "another program keeps changing what is wrong")
}

func (k *keeper) settled(p attach.Attached, side attach.Side) {
	s := k.stateOf(part{p.PortName(), side})
	if s.said != "" {
		k.about(p, side).Info("as it should be again")
	}
	s.said = ""
}

// failed says once why something is not compared, until everything has been.
func (k *keeper) failed(err error, words ...any) {
	if !k.failures[err.Error()] {
		k.Log.Error("not compared", append(words, "error", err)...)
	}
	k.failures[err.Error()] = true
}

// reportNameless waits for a second look: a port of an ADD under way has no record
// for a moment.
func (k *keeper) reportNameless(links []rtnl.Link) {
	now := map[string]bool{}
	for _, l := range links {
		if _, known := k.ports[l.Name]; known {
			continue
		}
		said, before := k.nameless[l.Name]
		if before && !said {
			k.Log.Warn("a port has lost its record, and is left alone: it cannot be told how it should be", "port", l.Name, "alias", l.Alias)
		}
		now[l.Name] = before
	}
	k.nameless = now
}
