package guest

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// echoWait is how long an answer may take: longer than the second after which ARP asks again, so that a lost ARP request does
// not cost an echo too.
const echoWait = 2 * time.Second

func (g *netstack) Ping(ctx context.Context, dst netip.Addr, count int) (Ping, error) {
	var p Ping
	if err := cmp.Or(checkPing(dst, count), g.ended(ctx)); err != nil {
		return p, err
	}
	conn, err := g.dialEcho(dst)
	if err != nil {
		return p, fmt.Errorf("ping %q: %w", dst, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	for p.Sent < count {
		rtt, err := echo(ctx, conn, uint16(p.Sent))
		if ended := g.ended(ctx); ended != nil {
			return p, fmt.Errorf("ping %q: %w", dst, ended)
		}
		p.Sent++
		if err == nil {
			p.Received++
			p.RTTs = append(p.RTTs, rtt)
		}
	}
	return p, nil
}

// dialEcho returns a connection that sends echo requests and receives their answers. gonet has none for ICMP, but the one it has for
// UDP asks no more of its endpoint than that it carries datagrams.
func (g *netstack) dialEcho(dst netip.Addr) (net.Conn, error) {
	queue := new(waiter.Queue)
	ep, err := g.stack.NewEndpoint(icmp.ProtocolNumber4, ipv4.ProtocolNumber, queue)
	if err != nil {
		return nil, fmt.Errorf("open ICMP endpoint: %s", err)
	}
	if err := ep.Connect(tcpip.FullAddress{NIC: theNIC, Addr: tcpip.AddrFrom4(dst.As4())}); err != nil {
		ep.Close()
		return nil, fmt.Errorf("connect ICMP endpoint: %s", err)
	}
	return gonet.NewUDPConn(queue, ep), nil
}

// echo sends one request and waits for its answer, passing over late answers to earlier ones.
func echo(ctx context.Context, conn net.Conn, seq uint16) (time.Duration, error) {
	start := time.Now()
	if err := conn.SetDeadline(start.Add(echoWait)); err != nil {
		return 0, err
	}
	if ctx.Err() != nil { // if it ends only now, the deadline follows
		return 0, ctx.Err()
	}
	if _, err := conn.Write(echoRequest(seq)); err != nil {
		return 0, err
	}
	reply := make([]byte, 128)
	for {
		n, err := conn.Read(reply)
		if err != nil {
			return 0, err
		}
		if n >= header.ICMPv4MinimumSize && header.ICMPv4(reply).Sequence() == seq {
			return time.Since(start), nil
		}
	}
}

// echoRequest is as long as ping(8)'s. The stack fills in identity and checksum.
func echoRequest(seq uint16) []byte {
	request := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize+56))
	request.SetType(header.ICMPv4Echo)
	request.SetSequence(seq)
	return request
}

// ended says why nothing more can come: the caller gave up, or the guest is closed.
func (g *netstack) ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return net.ErrClosed
	}
	return nil
}
