// Package rtnl is one rtnetlink connection to one network namespace, with the
// few requests that the netlink library does not offer. What the requests mean
// (taps, ports, entries) is the business of the packages that send them.
package rtnl

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Conn sends rtnetlink requests to the namespace in which it was opened,
// whatever thread it is used from.
type Conn struct {
	socket *socket
	ns     Namespace          // -1: the process's own
	handle netlinksafe.Handle // see Handle
}

// Open connects to the network namespace of the process.
func Open() (*Conn, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	return &Conn{socket: s, ns: -1}, nil
}

// OpenAt connects to the network namespace at path. Errors: unix.ENOENT, unix.EINVAL
// when it is something else.
func OpenAt(path string) (c *Conn, err error) {
	n, err := openNamespace(path)
	if err != nil {
		return nil, err
	}
	err = n.inside(func() (err error) { c, err = Open(); return err })
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("open network namespace %q: %w", path, err)
	}
	c.ns = n
	return c, nil
}

// IsNoNamespace reports whether err, with which OpenAt has failed, means that there is
// no network namespace at path, rather than that it cannot be entered.
func IsNoNamespace(path string, err error) bool {
	_, statErr := os.Stat(path)
	return statErr != nil && !errors.Is(statErr, fs.ErrPermission) ||
		errors.Is(err, errNoNamespace) // what is left of one on a file system, or a namespace of another kind
}

// Close releases the sockets and the hold on the namespace.
func (c *Conn) Close() {
	if c.handle.Handle != nil {
		c.handle.Close()
	}
	c.socket.close()
	if c.ns >= 0 {
		c.ns.Close()
	}
}

// Handle is the netlink library's own way to the namespace, for what this package
// has no request for. It has a socket of its own, which is opened when it is first
// asked for.
func (c *Conn) Handle() (netlinksafe.Handle, error) {
	if c.handle.Handle != nil {
		return c.handle, nil
	}
	var handle netlinksafe.Handle
	err := c.Inside(func() (err error) { handle, err = netlinksafe.NewHandle(unix.NETLINK_ROUTE); return err })
	if err != nil {
		return handle, fmt.Errorf("open a netlink handle: %w", err)
	}
	c.handle = handle
	return handle, nil
}

// Inside runs f on a thread that is in the connection's namespace. Netlink does
// not need it; two things do: /dev/net/tun gives a tap to the namespace in
// which it is opened, and /proc/sys/net shows that of the writing thread.
// Goroutines that f starts are not inside.
func (c *Conn) Inside(f func() error) error {
	if c.ns < 0 {
		return f()
	}
	return c.ns.inside(f)
}

// FD is the descriptor of the namespace, for IFLA_NET_NS_FD; -1 stands for the
// process's own.
func (c *Conn) FD() int { return int(c.ns) }

// NSID is the id that the connection's namespace has for another one, as in a link's
// NetNsID; NoPeer when it has none.
func (c *Conn) NSID(other Namespace) (int, error) {
	msg, err := c.Get(unix.RTM_GETNSID, unix.RTM_NEWNSID, nl.NewRtGenMsg(), nl.NewRtAttr(unix.NETNSA_FD, nl.Uint32Attr(uint32(other))))
	if err != nil {
		return NoPeer, fmt.Errorf("read the id of a network namespace: %w", err)
	}
	id, ok := Attributes(msg[min(unix.NLMSG_ALIGNTO, len(msg)):]).Uint32(unix.NETNSA_NSID) // behind a struct rtgenmsg
	if !ok {
		return NoPeer, fmt.Errorf("read the id of a network namespace: none is told: %w", unix.EPROTO)
	}
	return int(int32(id)), nil
}

// Change sends a request that is answered by an acknowledgement alone.
func (c *Conn) Change(kind, flags int, parts ...nl.NetlinkRequestData) error {
	return c.Sequence(Message{kind, flags, parts})
}

// Get sends a request that is answered by one message of type reply.
func (c *Conn) Get(kind, reply int, parts ...nl.NetlinkRequestData) ([]byte, error) {
	request := Message{kind, 0, parts}
	msgs, err := c.socket.ask(request, uint16(reply), all)
	for errors.Is(err, errCut) {
		msgs, err = c.socket.ask(request, uint16(reply), all)
	}
	if err != nil {
		return nil, err
	}
	if len(msgs) != 1 {
		return nil, fmt.Errorf("netlink answered request %d with %d messages, want 1", kind, len(msgs))
	}
	return msgs[0], nil
}

// dumpAttempts bounds how often a dump that the kernel calls inconsistent
// (NLM_F_DUMP_INTR: links came or went meanwhile) is asked for again.
const dumpAttempts = 10

// all is how many messages of a dump are wanted where none is too many.
const all = math.MaxInt

// Dump sends a dump request and returns its messages, all from one consistent pass.
func (c *Conn) Dump(kind, reply int, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	return c.DumpSome(all, kind, reply, parts...)
}

// DumpSome is Dump for who needs only the first few messages of what may be very many. It
// can return more.
func (c *Conn) DumpSome(few, kind, reply int, parts ...nl.NetlinkRequestData) (msgs [][]byte, err error) {
	for range dumpAttempts {
		var consistent bool
		if msgs, consistent, err = c.pass(few, kind, reply, parts...); err != nil || consistent {
			return msgs, err
		}
	}
	return nil, fmt.Errorf("netlink dump %d times inconsistent: %w", dumpAttempts, unix.EINTR)
}

// pass is a dump as it comes. After one that has failed, or is not read to the end, it
// takes another socket: on this one the kernel would refuse the next (EBUSY;
// net/netlink/af_netlink.c, __netlink_dump_start).
func (c *Conn) pass(few, kind, reply int, parts ...nl.NetlinkRequestData) (msgs [][]byte, consistent bool, err error) {
	request := Message{kind, unix.NLM_F_DUMP, parts}
	msgs, err = c.socket.ask(request, uint16(reply), few)
	for errors.Is(err, errCut) {
		if err = c.renew(); err == nil {
			msgs, err = c.socket.ask(request, uint16(reply), few)
		}
	}
	if errors.Is(err, errUnread) {
		return msgs, true, c.renew()
	}
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return msgs, false, nil
	}
	if err != nil {
		return nil, false, errors.Join(err, c.renew())
	}
	return msgs, true, nil
}

func (c *Conn) renew() error {
	return c.Inside(func() error {
		fresh, err := openSocket()
		if err != nil {
			return err
		}
		if len(c.socket.buffer) > len(fresh.buffer) {
			fresh.buffer, c.socket.buffer = c.socket.buffer, fresh.buffer
		}
		c.socket.close()
		c.socket = fresh
		return nil
	})
}

// IsNotExist reports whether err says that a device, or the namespace, is not
// there (any more).
func IsNotExist(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}
