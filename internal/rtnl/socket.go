package rtnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// socket sends requests and waits for their answers, one after another. The
// library's own costs an ADD a fifth of its time: it asks for the socket's number
// and takes 64 KiB of fresh memory for each answer, and waits by way of epoll for
// what is there when the request returns.
type socket struct {
	fd     int
	sent   uint32 // the number of the last message
	buffer []byte // for one answer
}

// answerSize is more than the kernel puts into one (net/netlink/af_netlink.c,
// netlink_dump: 32 KiB), but for a device that has nearly as many other names as it
// may: those alone are 64 KiB (net/core/rtnetlink.c, rtnl_alt_ifname).
const answerSize = 64 << 10

// errCut says that an answer was longer than the buffer. The next one of that length
// will not be.
var errCut = errors.New("an answer was longer than expected")

// buffers are for who opens hundreds of sockets, one after another.
var buffers = sync.Pool{New: func() any { return new([answerSize]byte) }}

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	s := &socket{fd: fd, buffer: buffers.Get().(*[answerSize]byte)[:]}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1); err != nil {
		s.close()
		return nil, fmt.Errorf("ask netlink for its reasons: %w", err)
	}
	return s, nil
}

func (s *socket) close() {
	if s.fd < 0 {
		return
	}
	unix.Close(s.fd)
	if len(s.buffer) == answerSize {
		buffers.Put((*[answerSize]byte)(s.buffer))
	}
	s.fd, s.buffer = -1, nil
}

// send numbers the messages, and sends them in one system call.
func (s *socket) send(messages ...Message) error {
	var all []byte
	for _, m := range messages {
		s.sent++
		r := nl.NetlinkRequest{NlMsghdr: unix.NlMsghdr{Type: uint16(m.Kind), Flags: uint16(m.Flags) | unix.NLM_F_REQUEST, Seq: s.sent}, Data: m.Parts}
		all = append(all, r.Serialize()...)
		all = append(all, make([]byte, -len(all)&(unix.NLMSG_ALIGNTO-1))...)
	}
	return unix.Sendto(s.fd, all, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive waits for messages about one of the last n that were sent: others are of
// an earlier request that was given up, or somebody's who has guessed the socket.
func (s *socket) receive(n int) (about []syscall.NetlinkMessage, err error) {
	length, from, err := unix.Recvfrom(s.fd, s.buffer, unix.MSG_TRUNC)
	if err != nil {
		return nil, err
	}
	if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != nl.PidKernel {
		return nil, nil
	}
	if length > len(s.buffer) {
		s.buffer = make([]byte, 2*length)
		return nil, errCut
	}
	all, err := syscall.ParseNetlinkMessage(bytes.Clone(s.buffer[:length]))
	for _, m := range all {
		if s.sent-m.Header.Seq < uint32(n) {
			about = append(about, m)
		}
	}
	return about, err
}

// errUnread says that there is more than was wanted.
var errUnread = errors.New("an answer was not read to its end")

// ask sends a request and collects what is answered by messages of type reply. Errors:
// netlink.ErrDumpInterrupted for a dump that the kernel calls inconsistent (links came or
// went meanwhile), errUnread with the first few of a longer one.
func (s *socket) ask(request Message, reply uint16, few int) (answers [][]byte, err error) {
	if err := s.send(request); err != nil {
		return nil, err
	}
	var interrupted error
	for {
		messages, err := s.receive(1)
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = netlink.ErrDumpInterrupted
			}
			switch m.Header.Type {
			case unix.NLMSG_ERROR:
				return nil, verdict(m)
			case unix.NLMSG_DONE:
				return answers, dumped(m, interrupted)
			case reply:
				answers = append(answers, m.Data)
			}
			if m.Header.Flags&unix.NLM_F_MULTI == 0 {
				return answers, nil
			}
		}
		if len(answers) >= few {
			return answers, errUnread
		}
	}
}

// dumped is what the end of a dump says: an error in its middle, if anything.
func dumped(end syscall.NetlinkMessage, interrupted error) error {
	if len(end.Data) >= 4 {
		if code := int32(binary.NativeEndian.Uint32(end.Data)); code < 0 {
			return unix.Errno(-code)
		}
	}
	return interrupted
}
