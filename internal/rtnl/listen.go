package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/pkg/mac"
)

// Event is a change that the kernel has told of: enough to know what to look at
// again, not what has become of it.
type Event struct {
	NetNsID int      // of the namespace in which it happened; NoPeer: the listener's own
	Kind    uint16   // unix.RTM_NEWLINK and so on
	Index   int      // of the device
	Name    string   // of the device, where the kernel says it
	Group   uint32   // of the device, likewise
	Carrier bool     // of the device, where links are spoken of
	Address mac.Addr // of the device, likewise
	MAC     mac.Addr // of a forwarding entry
	Learned bool     // that entry: nobody has written it
}

// ErrLost says that events came faster than they were read: anything may have
// changed.
var ErrLost = errors.New("netlink events were lost")

// Listener hears of every change of links, forwarding entries, addresses, queues
// and filters in its namespace, and in all those for which its own has an id: each
// pod that has the other end of a veth.
type Listener struct {
	socket *os.File
	buffer []byte
}

// groups are what a Listener hears. Muting a link shows in no group but the last:
// no change of links is told for it (net/ipv6/addrconf.c, inet6_ifinfo_notify).
var groups = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_TC,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_IFINFO,
}

// Listen hears of the network namespace of the process. It needs CAP_NET_BROADCAST
// to hear of others (net/netlink/af_netlink.c, netlink_setsockopt).
func Listen() (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := subscribe(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("listen to netlink events: %w", err), unix.Close(fd))
	}
	const largest = 64 << 10 // bytes; see shorten. Most datagrams of events are one page
	return &Listener{os.NewFile(uintptr(fd), "netlink events"), make([]byte, largest)}, nil
}

// subscribe makes room for what a bridge with a thousand ports says when it goes.
func subscribe(fd int) error {
	const room = 4 << 20 // bytes
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1); err != nil {
		return fmt.Errorf("of other namespaces: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err // before the groups: it would leave them
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return fmt.Errorf("group %d: %w", g, err)
		}
	}
	return nil
}

// Close ends a Next under way with os.ErrClosed.
func (l *Listener) Close() error { return l.socket.Close() }

// Next waits for events. Errors: ErrLost, after which it can be called again;
// os.ErrClosed.
func (l *Listener) Next() ([]Event, error) {
	raw, err := l.socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var n, oobn, flags int
	var recvErr error
	oob := make([]byte, unix.CmsgSpace(4))
	err = raw.Read(func(fd uintptr) bool {
		n, oobn, flags, _, recvErr = unix.Recvmsg(int(fd), l.buffer, oob, 0)
		return !errors.Is(recvErr, unix.EAGAIN) && !errors.Is(recvErr, unix.EINTR)
	})
	switch {
	case err != nil: // nothing else ends the wait
		return nil, os.ErrClosed
	case errors.Is(recvErr, unix.ENOBUFS):
		return nil, ErrLost
	case recvErr != nil:
		return nil, fmt.Errorf("read netlink events: %w", recvErr)
	}
	if flags&unix.MSG_TRUNC != 0 {
		shorten(l.buffer[:n])
	}
	return events(l.buffer[:n], sender(oob[:oobn]))
}

// shorten makes a message of what has been read of a longer one. A datagram of events has
// one, and what is of interest in it comes first: what makes that of a device long, its
// other names, is its end (net/core/rtnetlink.c, rtnl_fill_ifinfo).
func shorten(datagram []byte) { binary.NativeEndian.PutUint32(datagram, uint32(len(datagram))) }

// sender is the id of the namespace that a datagram comes from; the kernel says
// nothing where it is the listener's own.
func sender(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return NoPeer
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(m.Data)))
		}
	}
	return NoPeer
}

func events(datagram []byte, nsid int) (all []Event, err error) {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		return nil, fmt.Errorf("parse netlink events: %w", err)
	}
	for _, m := range messages {
		if e, ok := event(m.Header.Type, m.Data); ok {
			e.NetNsID = nsid
			all = append(all, e)
		}
	}
	return all, nil
}

// event reads a message. The index of the device is at the same place in what
// begins those of links, neighbours, addresses, queues and filters (struct
// ifinfomsg, ndmsg, ifaddrmsg, tcmsg).
func event(kind uint16, data []byte) (e Event, ok bool) {
	if len(data) < 8 {
		return e, false
	}
	e = Event{Kind: kind, Index: int(int32(binary.NativeEndian.Uint32(data[4:])))}
	after := func(header int) Attributes { return data[min(header, len(data)):] }
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		e.Name = unix.ByteSliceToString(after(unix.SizeofIfInfomsg).Get(unix.IFLA_IFNAME))
		if group := after(unix.SizeofIfInfomsg).Get(unix.IFLA_GROUP); len(group) == 4 {
			e.Group = binary.NativeEndian.Uint32(group)
		}
		e.Carrier = kind == unix.RTM_NEWLINK && len(data) >= unix.SizeofIfInfomsg && binary.NativeEndian.Uint32(data[8:])&unix.IFF_LOWER_UP != 0
		e.Address = mac.From(after(unix.SizeofIfInfomsg).Get(unix.IFLA_ADDRESS))
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if data[0] != unix.AF_BRIDGE {
			return e, false // somebody's IP neighbour
		}
		e.MAC = mac.From(after(unix.SizeofNdMsg).Get(unix.NDA_LLADDR))
		const written = unix.NUD_NOARP | unix.NUD_PERMANENT // net/bridge/br_fdb.c, fdb_to_nud
		e.Learned = len(data) >= unix.SizeofNdMsg && binary.NativeEndian.Uint16(data[8:])&written == 0
	}
	return e, true
}
