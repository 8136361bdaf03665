package rtnl

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Message is one change of a Sequence.
type Message struct {
	Kind, Flags int
	Parts       []nl.NetlinkRequestData
}

// Sequence sends several changes in one system call: a process can be killed
// before all of them or after, but not in between, because the kernel handles
// every message before it returns (net/netlink/af_netlink.c, netlink_rcv_skb).
// It goes on after one that fails, so what follows the creation of a device must
// do no harm without it. The error is the first one's.
func (c *Conn) Sequence(messages ...Message) error {
	for i := range messages {
		messages[i].Flags |= unix.NLM_F_ACK
	}
	if err := c.socket.send(messages...); err != nil {
		return err
	}
	return c.socket.acknowledged(len(messages))
}

// acknowledged reads the kernel's verdicts on the last n messages.
func (s *socket) acknowledged(n int) (first error) {
	for left := n; left > 0; {
		answers, err := s.receive(n)
		if err != nil {
			return err
		}
		for _, a := range answers {
			if a.Header.Type != unix.NLMSG_ERROR {
				continue
			}
			left--
			if err := verdict(a); first == nil {
				first = err
			}
		}
	}
	return first
}

// verdict is nil for success, else the error with the kernel's reason: a struct
// nlmsgerr, then attributes.
func verdict(m syscall.NetlinkMessage) error {
	if len(m.Data) < 4 {
		return fmt.Errorf("netlink acknowledges by %d bytes: %w", len(m.Data), unix.EPROTO)
	}
	errno := -int32(binary.NativeEndian.Uint32(m.Data))
	if errno == 0 {
		return nil
	}
	if reason := reason(m); reason != "" {
		return fmt.Errorf("%w: %s", unix.Errno(errno), reason)
	}
	return unix.Errno(errno)
}

func reason(m syscall.NetlinkMessage) string {
	const sizeofNlmsgerr = 4 + unix.SizeofNlMsghdr
	if m.Header.Flags&unix.NLM_F_ACK_TLVS == 0 || len(m.Data) < sizeofNlmsgerr {
		return ""
	}
	skip := sizeofNlmsgerr
	if m.Header.Flags&unix.NLM_F_CAPPED == 0 { // the request is echoed whole
		skip = 4 + int(binary.NativeEndian.Uint32(m.Data[4:])+3)&^3
	}
	if skip < sizeofNlmsgerr || skip > len(m.Data) {
		return ""
	}
	attrs, err := ParseAttributes(m.Data[skip:])
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(attrs.Get(nl.NLMSGERR_ATTR_MSG))
}
