package bandwidth

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/test/guest"
)

// sockets speak through the kernel's TCP in a namespace, which sends segments of up to 64 KiB and leaves it to the device to cut
// them.
type sockets struct {
	ns   *nstest.NS
	addr netip.Addr
}

// container is the end in a pod without a VM.
func container(t testing.TB, pod *nstest.NS, n byte) end {
	t.Helper()
	addr := netip.AddrFrom4([4]byte{10, 0, 0, n})
	pod.Run(t, "ip", "addr", "add", addr.String()+"/24", "dev", "net1")
	return end{sockets{ns: pod, addr: addr}, addr}
}

// Serve answers each connection with the number of bytes it brought.
func (s sockets) Serve(port uint16) (err error) {
	var listener net.Listener
	s.ns.Do(func() { listener, err = net.Listen("tcp", netip.AddrPortFrom(s.addr, port).String()) })
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				n, _ := io.Copy(io.Discard, conn)
				fmt.Fprintln(conn, n)
			}()
		}
	}()
	return nil
}

func (s sockets) Transfer(ctx context.Context, dst netip.AddrPort, bytes int64) (guest.Transfer, error) {
	start := time.Now()
	var conn net.Conn
	var err error
	s.ns.Do(func() { conn, err = net.Dial("tcp", dst.String()) })
	if err != nil {
		return guest.Transfer{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	if _, err := conn.Write(make([]byte, bytes)); err != nil {
		return guest.Transfer{}, err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return guest.Transfer{}, err
	}
	var got int64
	if _, err := fmt.Fscan(conn, &got); err != nil || got != bytes {
		return guest.Transfer{}, fmt.Errorf("sent %d bytes, %d arrived: %w", bytes, got, err)
	}
	return guest.Transfer{Bytes: bytes, Took: time.Since(start)}, nil
}
