package nstest

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

const (
	headerLen = 14
	minFrame  = 60
	// Nobody acts on a frame of the IEEE's local experimental ethertype.
	etherType = 0x88b5
)

// Frame is an Ethernet frame whose payload is the tag, padded to size bytes
// in all. It is never shorter than Ethernet allows or than the tag needs.
func Frame(dst, src net.HardwareAddr, size int, tag string) []byte {
	frame := make([]byte, max(size, minFrame, headerLen+len(tag)))
	copy(frame, dst)
	copy(frame[6:], src)
	binary.BigEndian.PutUint16(frame[12:], etherType)
	copy(frame[headerLen:], tag)
	return frame
}

// Count sends n copies of the frame and returns how many of them reached the
// other wire. The last bytes of each copy are overwritten by a serial number,
// so that no frame counts that is not of this call, and none counts twice.
//
// It waits for the missing ones until nothing has come for 0.3 s.
func Count(t testing.TB, from, to *Wire, frame []byte, n int) int {
	t.Helper()
	missing := make(map[string]bool, n)
	for range n {
		copied, serial := stamp(t, frame)
		missing[serial] = true
		from.Send(copied)
	}
	await(func() int { to.tick(missing); return len(missing) })
	return n - len(missing)
}

// await calls left until it returns 0, or the same for 0.3 s. It counts its
// naps, not the clock: on a starved machine the reader of the wire loses as
// much time as this loop does.
func await(left func() int) {
	const nap, patience = 2 * time.Millisecond, 150
	last := left()
	for idle := 0; last > 0 && idle < patience; idle++ {
		time.Sleep(nap)
		if now := left(); now < last {
			last, idle = now, 0
		}
	}
}

// tick strikes the serials that have arrived off the list.
func (w *Wire) tick(missing map[string]bool) {
	for _, frame := range w.Frames() {
		if len(frame) >= serialLen {
			delete(missing, string(frame[len(frame)-serialLen:]))
		}
	}
}

const serialLen = len("#0000000001")

var serials atomic.Uint32

// stamp uses the end of the frame: there it spares every header.
func stamp(t testing.TB, frame []byte) (copied []byte, serial string) {
	t.Helper()
	if len(frame) < headerLen+serialLen {
		t.Fatalf("a frame of %d bytes has no room for a serial number", len(frame))
	}
	serial = fmt.Sprintf("#%010d", serials.Add(1))
	return append(frame[:len(frame)-serialLen:len(frame)-serialLen], serial...), serial
}
