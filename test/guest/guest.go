package guest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
)

// NIC is a guest's network card and where it is plugged in.
type NIC struct {
	NetNS string // path of the network namespace the tap is in
	Tap   string // name of an existing tap there, made without multi_queue: a guest opens one queue
	MAC   net.HardwareAddr
	Addr  netip.Prefix // the guest's address; its network is what the guest can reach
	MTU   int

	// Offloads makes a Netstack leave checksums and the cutting of TCP segments to the kernel, as every VMM does. QEMU always does.
	Offloads bool
}

// Guest is a running guest. Its methods may be called at the same time; none of them outlives Close.
type Guest interface {
	// Ping sends count echo requests and waits for each answer, two seconds at most. No answer is no error: Received says it.
	Ping(ctx context.Context, dst netip.Addr, count int) (Ping, error)

	// Serve starts a TCP server on a port other than 0. It reads each connection to its end, answers with the number of bytes it
	// got, and closes it.
	Serve(port uint16) error

	// Transfer sends bytes to a port that another guest serves, and waits for the answer. An answer with another number is an
	// error.
	Transfer(ctx context.Context, dst netip.AddrPort, bytes int64) (Transfer, error)

	// Close pulls the plug: whatever the guest is doing ends with an error, and the tap can be opened again.
	Close() error
}

// Ping is what came of a series of echo requests.
type Ping struct {
	Sent, Received int
	RTTs           []time.Duration // of the answers, in the order they came
}

// Median is the round-trip time that half of the answers did not exceed; 0 if there was none.
func (p Ping) Median() time.Duration {
	if len(p.RTTs) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(p.RTTs))[len(p.RTTs)/2]
}

// Transfer is what was transferred and how long that took, from the first SYN to the answer.
type Transfer struct {
	Bytes int64
	Took  time.Duration
}

func (n NIC) check() error {
	switch {
	case len(n.MAC) != 6 || n.MAC[0]&1 != 0:
		return fmt.Errorf("guest MAC %q is not a unicast Ethernet address", n.MAC)
	case !n.Addr.IsValid() || !n.Addr.Addr().Is4():
		return fmt.Errorf("guest address %q is not an IPv4 address with a prefix length", n.Addr)
	case n.MTU < 68 || n.MTU > 65535:
		return fmt.Errorf("guest MTU %d is not within 68 and 65535", n.MTU)
	}
	return nil
}

// inside runs f on a thread in the tap's namespace: a tap belongs to the namespace in which /dev/net/tun is opened. The thread is
// f's alone until f returns. The tap must exist: whoever opens one that does not makes a private tap, which no bridge knows.
func (n NIC) inside(f func(tap *net.Interface) error) error {
	return ns.WithNetNSPath(n.NetNS, func(ns.NetNS) error {
		tap, err := net.InterfaceByName(n.Tap)
		if err != nil {
			return fmt.Errorf("find tap %q in %q: %w", n.Tap, n.NetNS, err)
		}
		return f(tap)
	})
}

func checkPing(dst netip.Addr, count int) error {
	if !dst.Is4() || count < 1 {
		return fmt.Errorf("ping %q %d times: want an IPv4 address, and at least once", dst, count)
	}
	return nil
}

func checkTransfer(dst netip.AddrPort, bytes int64) error {
	if !dst.Addr().Is4() || dst.Port() == 0 || bytes < 0 {
		return fmt.Errorf("transfer %d bytes to %q: want an IPv4 address and a port, and no negative number", bytes, dst)
	}
	return nil
}

// checkAnswer compares what the server says it got with what was sent.
func checkAnswer(answer string, sent int64) error {
	got, err := strconv.ParseInt(strings.TrimSpace(answer), 10, 64)
	if err != nil {
		return fmt.Errorf("read the server's answer %q: %w", answer, err)
	}
	if got != sent {
		return fmt.Errorf("sent %d bytes, the server got %d", sent, got)
	}
	return nil
}
