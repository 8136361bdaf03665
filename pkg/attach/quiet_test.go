package attach_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// quietTime is how long an attachment must say nothing. The kernel's own frames
// (listener reports, neighbour and router solicitations) come within 5 s of a
// link going up.
const quietTime = 5 * time.Second

// TestQuiet: no frame of an attachment's own reaches the guest or the network,
// on a node and in a pod that are IPv6 routers. In mode veth the pod's stack is
// the guest, and free to speak.
func TestQuiet(t *testing.T) {
	t.Parallel()
	guests := map[port.Mode]*guest{}
	for _, mode := range port.Modes {
		guests[mode] = guestAmongRouters(t, mode)
	}
	control := lanUnmuted(t)
	time.Sleep(quietTime)

	for _, mode := range port.Modes {
		g := guests[mode]
		lanSilent(t, fmt.Sprintf("%s: at the guest", mode), g.wire.Frames())
		heard := g.node.outside.wire.Frames()
		if mode == port.Veth {
			own := len(heard)
			heard = lanNotFrom(heard, g.lanStation)
			if own == len(heard) {
				t.Error("veth: the pod's own stack was not heard either: this test hears nothing")
			}
		}
		lanSilent(t, fmt.Sprintf("%s: on the network", mode), heard)
	}
	if len(control.Frames()) == 0 {
		t.Error("a port made by hand was not heard: this test hears nothing")
	}
}

// guestAmongRouters is listened to from before its ADD.
func guestAmongRouters(t *testing.T, mode port.Mode) *guest {
	t.Helper()
	n := lanNew(t, 1500)
	g := &guest{Attachment: n.plan(mode, port.Kernel), pod: nstest.New(t), node: n}
	g.mac = g.Guest.HardwareAddr()
	lanRouter(t, n.NS)
	lanRouter(t, g.pod)
	if err := g.apply(); err != nil {
		t.Fatal(err)
	}
	g.start(t)
	return g
}

// lanRouter turns IPv6 on for links to come, and routing for all.
func lanRouter(t *testing.T, ns *nstest.NS) {
	t.Helper()
	ns.Run(t, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=0", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1")
}

// lanUnmuted is a port that nobody told to be quiet.
func lanUnmuted(t *testing.T) *nstest.Wire {
	t.Helper()
	n := lanNew(t, 1500)
	lanRouter(t, n.NS)
	n.Run(t, "ip", "tuntap", "add", "byhand", "mode", "tap")
	n.Run(t, "ip", "link", "set", "byhand", "master", lanBridge, "up")
	return nstest.OpenTap(t, n.NS, "byhand")
}

func lanNotFrom(frames [][]byte, s lanStation) (others [][]byte) {
	for _, frame := range frames {
		if !bytes.Equal(frame[6:12], s.mac) {
			others = append(others, frame)
		}
	}
	return others
}

func lanSilent(t *testing.T, where string, frames [][]byte) {
	t.Helper()
	if len(frames) == 0 {
		return
	}
	var dump strings.Builder
	for _, frame := range frames {
		fmt.Fprintf(&dump, "%x\n", frame)
	}
	t.Errorf("%s %d frames were heard in %v, want none:\n%s", where, len(frames), quietTime, dump.String())
}
