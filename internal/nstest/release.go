package nstest

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// awaitRelease waits for the children that other goroutines are forking: each
// has a copy of the descriptor until its exec, close-on-exec or not, and with
// it the link. It gives up after a second: somebody else may hold it by now.
func (w *Wire) awaitRelease(before uint32) {
	for range 1000 {
		if now := w.held(); now == 0 || now < before {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// held counts those who have the link open; nobody has one that is gone.
func (w *Wire) held() uint32 {
	attrs, err := w.ns.linkAttrs(w.name)
	if err != nil {
		return 0
	}
	return w.hold(attrs)
}

type holders func(link map[uint16][]byte) uint32

// queues is the carrier where a tap has only one queue.
func queues(link map[uint16][]byte) uint32 {
	tun := nested(nested(link[unix.IFLA_LINKINFO])[unix.IFLA_INFO_DATA])
	if n := tun[unix.IFLA_TUN_NUM_QUEUES]; len(n) == 4 {
		return binary.NativeEndian.Uint32(n)
	}
	return uint32(append(link[unix.IFLA_CARRIER], 0)[0])
}

func promiscuity(link map[uint16][]byte) uint32 {
	if n := link[unix.IFLA_PROMISCUITY]; len(n) == 4 {
		return binary.NativeEndian.Uint32(n)
	}
	return 0
}
