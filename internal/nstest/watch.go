package nstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Watch hears what changes in a namespace.
type Watch struct {
	t      testing.TB
	ns     *NS
	fd     int
	names  map[int]string
	events []string
}

// Monitor listens from now on to links, neighbours and FDB entries, addresses,
// routes, qdiscs, filters and namespace ids. It lets the echo of earlier work
// (carrier, duplicate address detection) come to rest first.
func Monitor(t testing.TB, ns *NS) *Watch {
	t.Helper()
	ns.settle(func(links []object) bool { return settled(links) && !tentative(links) })
	w := &Watch{t: t, ns: ns, names: map[int]string{}}
	var err error
	ns.Do(func() { w.fd, err = subscribe() })
	if err != nil {
		t.Fatalf("watch namespace %q: %v", ns.Path, err)
	}
	t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

func subscribe() (int, error) {
	const buffer = 4 << 20 // Events may be called late
	groups := groupMask(
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_TC, unix.RTNLGRP_NSID,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	return closeUnless(fd, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}),
	))
}

func groupMask(groups ...int) (mask uint32) {
	for _, group := range groups {
		mask |= 1 << (group - 1)
	}
	return mask
}

// Events returns what has happened since Monitor, such as "new link tap0" or
// "del fdb 02:00:00:00:00:01 tap0", once nothing more has come for 0.2 s. A
// change of carrier may be reported up to a second late.
//
// The kernel speaks of requests, not of differences: setting a port flag to
// what it was is an event, an alias on a link that is down is none.
func (w *Watch) Events() []string {
	w.t.Helper()
	for w.readable() {
		w.events = append(w.events, w.read()...)
	}
	return slices.Clone(w.events)
}

func (w *Watch) readable() bool {
	const quiet = 200 // milliseconds
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, quiet)
		if !errors.Is(err, unix.EINTR) { // Go's scheduler sends signals
			return n > 0
		}
	}
}

func (w *Watch) read() (events []string) {
	w.t.Helper()
	buf := make([]byte, 1<<16)
	n, err := unix.Read(w.fd, buf)
	if errors.Is(err, unix.ENOBUFS) {
		return []string{"events were lost"}
	}
	if err != nil {
		w.t.Fatalf("watch namespace %q: %v", w.ns.Path, err)
	}
	messages, err := syscall.ParseNetlinkMessage(buf[:n])
	if err != nil {
		w.t.Fatalf("watch namespace %q: %v", w.ns.Path, err)
	}
	for _, m := range messages {
		events = append(events, w.describe(m.Header.Type, m.Data))
	}
	return events
}

// kinds are the RTM_NEW types; each RTM_DEL is one higher.
var kinds = map[uint16]struct {
	noun   string
	header int
}{
	unix.RTM_NEWLINK:    {"link", unix.SizeofIfInfomsg},
	unix.RTM_NEWADDR:    {"addr", unix.SizeofIfAddrmsg},
	unix.RTM_NEWROUTE:   {"route", unix.SizeofRtMsg},
	unix.RTM_NEWNEIGH:   {"neigh", unix.SizeofNdMsg},
	unix.RTM_NEWQDISC:   {"qdisc", sizeofTcMsg},
	unix.RTM_NEWTCLASS:  {"class", sizeofTcMsg},
	unix.RTM_NEWTFILTER: {"filter", sizeofTcMsg},
	unix.RTM_NEWCHAIN:   {"chain", sizeofTcMsg},
	unix.RTM_NEWNSID:    {"nsid", sizeofRtGenMsg},
}

const (
	sizeofTcMsg    = 20
	sizeofRtGenMsg = 4
)

func (w *Watch) describe(kind uint16, data []byte) string {
	k, known := kinds[kind&^1]
	if !known || len(data) < k.header {
		return fmt.Sprintf("message of type %d", kind)
	}
	verb := "new"
	if kind&1 == 1 {
		verb = "del"
	}
	words := append([]string{verb}, w.subject(k.noun, data, nested(data[k.header:]))...)
	return strings.Join(words, " ")
}

// subject says what a message is about. The headers hold the family first, the
// length of a prefix second, and at 4 the index of the device if any.
func (w *Watch) subject(noun string, data []byte, attrs map[uint16][]byte) []string {
	switch bridge := data[0] == unix.AF_BRIDGE; {
	case noun == "nsid":
		return []string{noun}
	case noun == "route":
		return []string{noun, prefix(attrs[unix.RTA_DST], data[1])}
	case noun == "addr":
		return []string{noun, prefix(attrs[unix.IFA_ADDRESS], data[1]), w.device(data)}
	case noun == "neigh" && bridge:
		return []string{"fdb", net.HardwareAddr(attrs[unix.NDA_LLADDR]).String(), w.device(data)}
	case noun == "neigh":
		return []string{noun, net.IP(attrs[unix.NDA_DST]).String(), w.device(data)}
	case noun == "link" && bridge:
		return []string{"port", w.named(data, attrs)}
	case noun == "link":
		return []string{noun, w.named(data, attrs)}
	}
	return []string{noun, w.device(data)}
}

func prefix(ip []byte, length byte) string {
	if len(ip) == 0 {
		return "default"
	}
	return fmt.Sprintf("%s/%d", net.IP(ip), length)
}

func index(data []byte) int { return int(binary.NativeEndian.Uint32(data[4:])) }

// named remembers what a link is called: when the next message mentions its
// index it may be gone.
func (w *Watch) named(data []byte, attrs map[uint16][]byte) string {
	name := unix.ByteSliceToString(attrs[unix.IFLA_IFNAME])
	w.names[index(data)] = name
	return name
}

func (w *Watch) device(data []byte) string {
	if name := w.names[index(data)]; name != "" {
		return name
	}
	link, err := w.ns.Handle().LinkByIndex(index(data))
	if err != nil {
		return fmt.Sprintf("#%d", index(data))
	}
	return link.Attrs().Name
}
