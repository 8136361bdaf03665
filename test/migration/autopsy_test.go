package migration

import (
	"context"
	"fmt"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/test/guest"
)

// hasSurvived asks the VM on its serial line whether it lives: without KVM, QEMU brings one in some hundreds over with
// memory that does not hold together, and its kernel stops, or QEMU itself. Of one that lives, but is
// mute on the network, the log tells what the target looks like.
func (l *lan) hasSurvived(vm *machine, at seat) bool {
	l.Helper()
	said, err := vm.ask("cat /proc/net/dev /proc/net/arp /proc/interrupts")
	if err != nil {
		l.Logf("the VM has not survived its migration: %v\n%s", err, said)
		return false
	}
	if l.Table == port.Follow && l.isMute() {
		l.Logf("the VM lives, and is mute; it has\n%s", said)
		for place, ns := range map[string]*nstest.NS{"node": at.node.NS, "pod": at.pod} {
			l.Logf("the target's %s:\n%s", place, ns.Run(l, "sh", "-c", survey))
		}
	}
	return true
}

// survey is a command of iproute2's for all that a frame may meet.
const survey = `ip -s -d link; tc -s qdisc; bridge -d -s fdb
for d in $(sed -n 's/: .*//p' /proc/net/dev); do tc -s filter show dev $d ingress; done`

// isMute reports whether nobody has had an answer to any of the last requests.
func (l *lan) isMute() bool {
	for _, c := range l.clients {
		if c.answeredLately() {
			return false
		}
	}
	return true
}

// ask runs a command in the VM.
func (m *machine) ask(command string) (said string, err error) {
	m.t.Helper()
	select {
	case <-m.ended:
		return m.said.String(), fmt.Errorf("QEMU has ended: %v", m.cmd.ProcessState)
	default:
	}
	const enough = 20 * time.Second
	ctx, cancel := context.WithTimeout(m.t.Context(), enough)
	defer cancel()
	line := connect(m, m.console)
	defer line.Close()
	return guest.Resume(line).Run(ctx, command)
}
