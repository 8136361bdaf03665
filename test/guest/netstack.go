package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// theNIC is the number of a guest's only card.
const theNIC tcpip.NICID = 1

type netstack struct {
	stack *stack.Stack
	addr  tcpip.Address
	tap   *os.File

	tasks     sync.WaitGroup // the receiver, listeners and connections
	mu        sync.Mutex
	listeners []*gonet.TCPListener
	closed    bool
}

// Netstack starts a guest in this process: IPv4, ARP, ICMP and TCP of gVisor.
func Netstack(ctx context.Context, nic NIC) (Guest, error) {
	if err := cmp.Or(nic.check(), ctx.Err()); err != nil {
		return nil, err
	}
	tap, err := openTap(nic)
	if err != nil {
		return nil, err
	}
	wire := newWire(tap, nic)
	g := &netstack{stack: newStack(), addr: tcpip.AddrFrom4(nic.Addr.Addr().As4()), tap: tap}
	if err := g.plugIn(wire, nic); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	g.tasks.Go(wire.receive)
	if err := awaitLink(ctx, nic); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func newStack() *stack.Stack {
	return stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{icmp.NewProtocol4, tcp.NewProtocol},
	})
}

func (g *netstack) plugIn(wire *wire, nic NIC) error {
	if err := g.tuneTCP(); err != nil {
		return err
	}
	if err := g.stack.CreateNIC(theNIC, ethernet.New(wire)); err != nil {
		return fmt.Errorf("create NIC: %s", err)
	}
	addr := tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: g.addr, PrefixLen: nic.Addr.Bits()},
	}
	if err := g.stack.AddProtocolAddress(theNIC, addr, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("add address %q: %s", nic.Addr, err)
	}
	g.stack.SetRouteTable([]tcpip.Route{{Destination: addr.AddressWithPrefix.Subnet(), NIC: theNIC}})
	return nil
}

// tuneTCP makes a transfer fast but keeps what is in flight below the 1000 frames that a tap queues for a slow reader.
func (g *netstack) tuneTCP() error {
	sack := tcpip.TCPSACKEnabled(true)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: 1 << 20, Max: 1 << 20}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: 1 << 20, Max: 1 << 20}
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &send, &receive} {
		if err := g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return fmt.Errorf("set %T: %s", option, err)
		}
	}
	return nil
}

func (g *netstack) Serve(port uint16) error {
	listener, err := gonet.ListenTCP(g.stack, tcpip.FullAddress{NIC: theNIC, Addr: g.addr, Port: port}, ipv4.ProtocolNumber)
	if err != nil {
		return fmt.Errorf("serve port %d: %w", port, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errors.Join(fmt.Errorf("serve port %d: %w", port, net.ErrClosed), listener.Close())
	}
	g.listeners = append(g.listeners, listener)
	g.tasks.Go(func() { g.accept(listener) })
	return nil
}

func (g *netstack) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // closed
		}
		g.tasks.Go(func() { answer(conn) })
	}
}

// answer tells the peer how many bytes it sent. A peer whose connection broke learns it from the missing answer.
func answer(conn net.Conn) {
	defer conn.Close()
	if n, err := io.Copy(io.Discard, conn); err == nil {
		_, _ = fmt.Fprintln(conn, n)
	}
}

func (g *netstack) Transfer(ctx context.Context, dst netip.AddrPort, bytes int64) (Transfer, error) {
	if err := cmp.Or(checkTransfer(dst, bytes), g.ended(ctx)); err != nil {
		return Transfer{}, err
	}
	start := time.Now()
	if err := g.send(ctx, dst, bytes); err != nil {
		return Transfer{}, fmt.Errorf("transfer %d bytes to %q: %w", bytes, dst, errors.Join(g.ended(ctx), err))
	}
	return Transfer{bytes, time.Since(start)}, nil
}

func (g *netstack) send(ctx context.Context, dst netip.AddrPort, bytes int64) error {
	addr := tcpip.FullAddress{NIC: theNIC, Addr: tcpip.AddrFromSlice(dst.Addr().AsSlice()), Port: dst.Port()}
	conn, err := gonet.DialContextTCP(ctx, g.stack, addr, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	if _, err := io.CopyBuffer(conn, io.LimitReader(zeros{}, bytes), make([]byte, 64<<10)); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	return checkAnswer(string(answer), bytes)
}

// zeros is /dev/zero.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Close ends the stack before the tap: so its connections are reset and the peers know.
func (g *netstack) Close() error {
	if !g.closing() {
		return nil
	}
	g.stack.Close()
	err := g.tap.Close()
	g.tasks.Wait()
	g.stack.Wait()
	return err
}

// closing closes the listeners and keeps new ones out; false if that was done before.
func (g *netstack) closing() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.closed = true
	for _, l := range g.listeners {
		_ = l.Close()
	}
	return true
}
