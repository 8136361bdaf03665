package guest

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// offloadHeaderLen is that of struct virtio_net_hdr, which is before each frame of a tap with IFF_VNET_HDR.
const offloadHeaderLen = 10

// offloadHeader tells the kernel what is left to be done with a frame of netstack's. It has room for the frame behind it.
func offloadHeader(packet *stack.PacketBuffer) []byte {
	const needsChecksum, tcpOverIPv4 = 1, 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4
	h := make([]byte, offloadHeaderLen, offloadHeaderLen+packet.Size())
	todo := packet.GSOOptions
	if todo.Type == stack.GSONone {
		return h
	}
	binary.NativeEndian.PutUint16(h[2:], uint16(packet.HeaderSize()))
	if todo.NeedsCsum {
		h[0] = needsChecksum
		binary.NativeEndian.PutUint16(h[6:], header.EthernetMinimumSize+todo.L3HdrLen)
		binary.NativeEndian.PutUint16(h[8:], todo.CsumOffset)
	}
	if packet.Data().Size() > int(todo.MSS) {
		h[1] = tcpOverIPv4
		binary.NativeEndian.PutUint16(h[4:], todo.MSS)
	}
	return h
}
