package nstest

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Wire is the far side of a link: what it sends, the link receives.
type Wire struct {
	t    testing.TB
	ns   *NS
	name string
	file *os.File
	hold holders
	done chan struct{}

	mu     sync.Mutex
	frames [][]byte
}

// OpenTap attaches to an existing tap as a VMM does, and so gives it carrier.
// A tap made with several queues wants the flag unix.IFF_MULTI_QUEUE, and one
// OpenTap for each queue.
func OpenTap(t testing.TB, ns *NS, name string, flags ...uint16) *Wire {
	t.Helper()
	// TUNSETIFF would create what is not there.
	if _, err := ns.Handle().LinkByName(name); err != nil {
		t.Fatalf("open tap %q: %v", name, err)
	}
	return open(&Wire{t: t, ns: ns, name: name, hold: queues}, func() (int, error) { return attachFree(name, flags) })
}

// attachFree waits for the tap to be free: a child that another test forks at the
// wrong moment holds the descriptor that it was made with, until it executes its
// program.
func attachFree(name string, flags []uint16) (fd int, err error) {
	const nap, patience = 10 * time.Millisecond, 500
	for range patience {
		if fd, err = attach(name, flags); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(nap)
	}
	return fd, err
}

// OpenLink listens and sends on any link by a packet socket. It sees the
// frames that enter the link from outside, for whatever MAC, not those that
// this host sends through it. The kernel takes an 802.1Q tag off before, and
// counts the open wire in the link's promiscuity.
func OpenLink(t testing.TB, ns *NS, name string) *Wire {
	t.Helper()
	link, err := ns.Handle().LinkByName(name)
	if err != nil {
		t.Fatalf("open link %q: %v", name, err)
	}
	return open(&Wire{t: t, ns: ns, name: name, hold: promiscuity}, func() (int, error) { return listen(link.Attrs().Index) })
}

// open must make the descriptor inside the namespace: tun files and sockets
// belong to the one they were opened in, and work from anywhere afterwards.
func open(w *Wire, dial func() (int, error)) *Wire {
	w.t.Helper()
	var fd int
	var err error
	w.ns.Do(func() { fd, err = dial() })
	if err != nil {
		w.t.Fatalf("open %q: %v", w.name, err)
	}
	w.file, w.done = os.NewFile(uintptr(fd), w.name), make(chan struct{})
	go w.read()
	w.t.Cleanup(w.Close)
	return w
}

// attach returns a descriptor for os.NewFile, which must not see it earlier:
// the poller takes a tun file without a device for a broken one.
func attach(name string, flags []uint16) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	mode := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
	for _, flag := range flags {
		mode |= flag
	}
	request.SetUint16(mode)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return closeUnless(fd, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
}

// listen binds last, so that no frame arrives before the options are set.
func listen(index int) (int, error) {
	const (
		unbound = 0
		buffer  = 16 << 20 // a burst of jumbo frames, while nobody reads
	)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unbound)
	if err != nil {
		return -1, err
	}
	everything := unix.SockaddrLinklayer{Protocol: hton16(unix.ETH_P_ALL), Ifindex: index}
	promiscuous := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
	return closeUnless(fd, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &promiscuous),
		unix.Bind(fd, &everything),
	))
}

func closeUnless(fd int, err error) (int, error) {
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func hton16(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// read keeps what arrives until the file is closed or its device is gone. A
// packet socket reports once that its link went down, and stays usable.
func (w *Wire) read() {
	defer close(w.done)
	buf := make([]byte, 1<<16)
	for {
		n, err := w.file.Read(buf)
		if err == nil {
			w.keep(slices.Clone(buf[:n]))
		} else if !errors.Is(err, unix.ENETDOWN) {
			return
		}
	}
}

func (w *Wire) keep(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames = append(w.frames, frame)
}

// Send puts one frame on the wire. A link that is down or has no room loses
// it in silence, as it would a guest's.
func (w *Wire) Send(frame []byte) {
	w.t.Helper()
	err := w.TrySend(frame)
	for _, lost := range []error{unix.EIO, unix.ENETDOWN, unix.ENOBUFS} {
		if errors.Is(err, lost) {
			return
		}
	}
	if err != nil {
		w.t.Fatalf("send %d bytes on %q: %v", len(frame), w.name, err)
	}
}

// TrySend is Send for what the kernel may refuse.
func (w *Wire) TrySend(frame []byte) error {
	_, err := w.file.Write(frame)
	return err
}

// Frames is what has arrived so far, oldest first.
func (w *Wire) Frames() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.frames)
}

// Received counts the frames so far that match; nil matches all.
func (w *Wire) Received(match func([]byte) bool) int {
	n := 0
	for _, frame := range w.Frames() {
		if match == nil || match(frame) {
			n++
		}
	}
	return n
}

// Reset forgets what has arrived.
func (w *Wire) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames = nil
}

// Close lets go of the link; a tap has lost its carrier when it returns. The
// end of the test closes what is still open.
func (w *Wire) Close() {
	before := w.held()
	if w.file.Close() != nil {
		return // closed before
	}
	<-w.done
	w.awaitRelease(before)
}
