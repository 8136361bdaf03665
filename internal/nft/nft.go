// Package nft speaks to nftables in the kernel, without the program nft:
// requests, transactions, and the expressions that rules are made of. Which
// tables and rules there are is the business of packages gateway and guard.
package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Request is one message about a table of that family (unix.NFPROTO_INET …); kind
// is unix.NFT_MSG_GETRULE and its like.
func Request(family uint8, kind, flags int, attrs ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags)
	r.AddData(&nl.Nfgenmsg{NfgenFamily: family})
	for _, a := range attrs {
		r.AddData(a)
	}
	return r
}

// Text is an attribute that is a string.
func Text(attr int, value string) *nl.RtAttr { return nl.NewRtAttr(attr, nl.ZeroTerminated(value)) }

// Number is an attribute of 32 bits, which nftables has in network order.
func Number(attr int, value uint32) *nl.RtAttr {
	return nl.NewRtAttr(attr, binary.BigEndian.AppendUint32(nil, value))
}

// Nest is an attribute that is made of others.
func Nest(attr int, parts ...*nl.RtAttr) *nl.RtAttr {
	a := nl.NewRtAttr(unix.NLA_F_NESTED|attr, nil)
	for _, p := range parts {
		a.AddChild(p)
	}
	return a
}

// Comment makes user data that nft shows as a comment: type 0, a length, the text
// and its final NUL. It holds 127 bytes of text in nft.
func Comment(text string) []byte {
	return append([]byte{0, byte(len(text) + 1)}, nl.ZeroTerminated(text)...)
}

// CommentIn is the comment in a rule's user data; "" when it has none.
func CommentIn(data []byte) string {
	if len(data) < 2 || data[0] != 0 || len(data) < 2+int(data[1]) {
		return ""
	}
	return unix.ByteSliceToString(data[2 : 2+int(data[1])])
}

// Missing reports whether err says that what was asked for is not there, or
// nothing of nftables in the kernel at all.
func Missing(err error) bool {
	for _, no := range []error{unix.ENOENT, unix.EINVAL, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// Get sends a request that changes nothing in the network namespace ns, or in the
// thread's own (netns.None()), and returns the attributes of each answer. A dump
// during which others have made changes is asked for again.
func Get(ns netns.NsHandle, r *nl.NetlinkRequest) (all []rtnl.Attributes, err error) {
	const attempts = 10
	var msgs [][]byte
	for range attempts {
		if msgs, err = execute(ns, r); !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	for _, m := range msgs {
		attrs, e := parse(m)
		if e != nil {
			return nil, e
		}
		all = append(all, attrs)
	}
	return all, err
}

func parse(msg []byte) (rtnl.Attributes, error) {
	if len(msg) < nl.SizeofNfgenmsg {
		return nil, fmt.Errorf("parse an answer of nftables: %d bytes: %w", len(msg), unix.EPROTO)
	}
	attrs, err := rtnl.ParseAttributes(msg[nl.SizeofNfgenmsg:])
	if err != nil {
		return nil, fmt.Errorf("parse an answer of nftables: %w", err)
	}
	return attrs, nil
}

func execute(ns netns.NsHandle, r *nl.NetlinkRequest) ([][]byte, error) {
	s, err := open(ns)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: s}}
	return r.Execute(unix.NETLINK_NETFILTER, 0)
}

func open(ns netns.NsHandle) (*nl.NetlinkSocket, error) {
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a netfilter socket: %w", err)
	}
	return s, nil
}

// Commit sends the changes as one transaction: the kernel makes all of them or
// none. The error is that of the first that it refuses.
func Commit(ns netns.NsHandle, changes ...*nl.NetlinkRequest) error {
	return transact(ns, begin(), changes, frame(unix.NFNL_MSG_BATCH_END).Serialize())
}

// Generation tells how nftables is in the network namespace, of all families: it
// becomes another with every transaction of anybody.
func Generation(ns netns.NsHandle) ([]byte, error) {
	found, err := Get(ns, Request(unix.NFPROTO_UNSPEC, unix.NFT_MSG_GETGEN, 0))
	if err == nil && len(found) != 1 {
		err = unix.EPROTO
	}
	if err != nil {
		return nil, fmt.Errorf("ask nftables for its generation: %w", err)
	}
	return found[0].Get(unix.NFTA_GEN_ID), nil
}

// CommitSince is Commit if nobody has changed anything since Generation was asked;
// otherwise ERESTART (net/netfilter/nfnetlink.c, nfnetlink_rcv_batch).
func CommitSince(ns netns.NsHandle, generation []byte, changes ...*nl.NetlinkRequest) error {
	since := begin()
	since.AddData(nl.NewRtAttr(unix.NFNL_BATCH_GENID, generation))
	return transact(ns, since, changes, frame(unix.NFNL_MSG_BATCH_END).Serialize())
}

func begin() *nl.NetlinkRequest { return frame(unix.NFNL_MSG_BATCH_BEGIN) }

// CommitAnd makes changes, and in the same transaction those of tidy, unless the
// kernel refuses them: then the changes alone.
func CommitAnd(ns netns.NsHandle, changes, tidy []*nl.NetlinkRequest) error {
	err := Commit(ns, slices.Concat(changes, tidy)...)
	if errors.As(err, new(refusal)) {
		return Commit(ns, changes...)
	}
	return err
}

// Try is Commit without the end, for want of which the kernel makes no change in
// the end (net/netfilter/nfnetlink.c, nfnetlink_rcv_batch).
func Try(ns netns.NsHandle, changes ...*nl.NetlinkRequest) error {
	return transact(ns, begin(), changes, nil)
}

func transact(ns netns.NsHandle, begin *nl.NetlinkRequest, changes []*nl.NetlinkRequest, end []byte) error {
	last := changes[len(changes)-1]
	last.Flags |= unix.NLM_F_ACK
	batch := begin.Serialize()
	for _, c := range changes {
		batch = append(batch, c.Serialize()...)
	}
	batch = append(batch, end...)
	s, err := open(ns)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := unix.Sendto(s.GetFd(), batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return answer(s, last.Seq)
}

// frame begins or ends a batch; its resource is the subsystem, in network order.
func frame(kind int) *nl.NetlinkRequest {
	var subsystem [2]byte
	binary.BigEndian.PutUint16(subsystem[:], unix.NFNL_SUBSYS_NFTABLES)
	r := nl.NewNetlinkRequest(kind, 0)
	r.AddData(&nl.Nfgenmsg{ResId: binary.NativeEndian.Uint16(subsystem[:])})
	return r
}

// refusal is what the kernel says to a transaction, as opposed to what keeps it
// from being heard.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// Refused reports whether err is the kernel's answer to a transaction, and that
// one.
func Refused(err error, why unix.Errno) bool {
	return errors.As(err, new(refusal)) && errors.Is(err, why)
}

func answer(s *nl.NetlinkSocket, last uint32) error {
	for {
		msgs, _, err := s.Receive()
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue
			}
			if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
				return refusal{syscall.Errno(-code)}
			}
			if m.Header.Seq == last {
				return nil
			}
		}
	}
}
