package guest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const tunDevice = "/dev/net/tun"

// openTap opens the NIC's tap for frames as they are on the wire, or with offloads.
func openTap(nic NIC) (*os.File, error) {
	var fd int
	err := nic.inside(func(*net.Interface) (err error) {
		if fd, err = unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return fmt.Errorf("open %q: %w", tunDevice, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := attachTap(fd, nic); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open tap %q: %w", nic.Tap, err)
	}
	// Only now: the poller of package os takes a tun file without a device for one in error, for good.
	return os.NewFile(uintptr(fd), nic.Tap), nil
}

// attachTap makes fd the other end of the tap. The offloads that an earlier VMM asked for stay with the device and must go: without
// vnet_hdr nobody says which checksums are still to be filled in, and TCP drops every segment of the host's.
func attachTap(fd int, nic NIC) error {
	ifreq, err := unix.NewIfreq(nic.Tap)
	if err != nil {
		return err
	}
	flags, offloads := uint16(unix.IFF_TAP|unix.IFF_NO_PI), 0
	if nic.Offloads {
		flags, offloads = flags|unix.IFF_VNET_HDR, unix.TUN_F_CSUM|unix.TUN_F_TSO4
	}
	ifreq.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifreq); err != nil {
		return err
	}
	return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads)
}

// awaitLink waits until the kernel has noticed that somebody holds the tap, which it does in its own time (linkwatch_do_dev,
// net/core/link_watch.c). Until then the device drops every frame and its bridge port does not forward. A machine that boots never sees
// this; a guest that is there at once would lose its first ARP request, and with it a second. A tap that is down stays as it is.
func awaitLink(ctx context.Context, nic NIC) error {
	for waiting := true; waiting; {
		err := nic.inside(func(tap *net.Interface) error {
			waiting = tap.Flags&net.FlagUp != 0 && tap.Flags&net.FlagRunning == 0
			return ctx.Err()
		})
		if err != nil {
			return fmt.Errorf("wait for the link of tap %q: %w", nic.Tap, err)
		}
		if waiting {
			time.Sleep(2 * time.Millisecond)
		}
	}
	return nil
}

// wire joins netstack and a tap. Netstack's own fdbased would, but it ends its read loop for good at the first unicast frame for
// another MAC (readVDispatcher.dispatch, gVisor 573d5e7127a8), and a bridge that floods delivers such frames.
type wire struct {
	*channel.Endpoint // the MAC, the MTU and the dispatcher; its queue stays empty
	tap               io.ReadWriter
	offloads          bool
}

func newWire(tap io.ReadWriter, nic NIC) *wire {
	mtu := uint32(header.EthernetMinimumSize + nic.MTU) // of the frame: package ethernet takes the header off again
	w := &wire{channel.New(0, mtu, tcpip.LinkAddress(nic.MAC)), tap, nic.Offloads}
	if w.offloads {
		w.LinkEPCapabilities |= stack.CapabilityRXChecksumOffload
		w.SupportedGSOKind = stack.HostGSOSupported
	}
	return w
}

// WritePackets implements [stack.LinkEndpoint]. A frame that the tap does not take is lost, as on any wire.
func (w *wire) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	for _, packet := range packets.AsSlice() {
		frame := packet.ToView()
		if w.offloads {
			_, _ = w.tap.Write(append(offloadHeader(packet), frame.AsSlice()...))
		} else {
			_, _ = w.tap.Write(frame.AsSlice())
		}
		frame.Release()
	}
	return packets.Len(), nil
}

// receive hands frames to the stack until the tap is closed or deleted.
func (w *wire) receive() {
	buf := make([]byte, offloadHeaderLen+header.EthernetMinimumSize+65535)
	for {
		n, err := w.tap.Read(buf)
		if err != nil {
			return
		}
		frame := buf[:n]
		if w.offloads {
			frame = frame[min(n, offloadHeaderLen):] // that it may be larger than the MTU, and unsummed, is all the same to netstack
		}
		if w.admits(frame) {
			w.inject(frame)
		}
	}
}

// admits is the unicast filter of a network card.
func (w *wire) admits(frame []byte) bool {
	if len(frame) < header.EthernetMinimumSize {
		return false
	}
	group := frame[0]&1 != 0
	return group || bytes.Equal(frame[:6], []byte(w.LinkAddress()))
}

func (w *wire) inject(frame []byte) {
	packet := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	defer packet.DecRef()
	w.InjectInbound(0, packet) // the protocol is read from the frame's header, by package ethernet
}
