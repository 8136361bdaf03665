package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

const (
	etherType = 0x88b5 // IEEE local experimental: nobody acts on it
	probes    = 10
	// patience is how long a frame may take across two veth pairs.
	patience = 300 * time.Millisecond
)

var (
	unknown = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x99} // a MAC that nobody has
	onLAN   = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x77} // a sender behind the uplink
)

// showFlooding sends to a MAC address that nobody has: the bridge does not know
// where to, and every port that floods gets a copy.
func (n *node) showFlooding(context.Context) error {
	from := link{n.lan, "lan0"}
	for _, c := range []struct {
		to   link
		who  string
		want int
	}{
		{link{n.host, n.pods[0].port}, "the port of guest 1", 0},
		{link{n.host, n.pods[1].port}, "the port of guest 2", 0},
		{link{n.plain, "eth0"}, "a plain bridge port", probes},
	} {
		got, err := count(from, c.to, unknown, onLAN)
		if err != nil {
			return err
		}
		say("flooding", "uplink -> a MAC nobody has: %d of %d reach %s", got, probes, c.who)
		if got != c.want {
			return fmt.Errorf("want %d", c.want)
		}
	}
	return nil
}

// showSpoofing sends from the pod interface what a guest with a forged source
// address would: the redirect hands on the tap's frames there.
func (n *node) showSpoofing(ctx context.Context) error {
	attacker, victim := n.pods[0], n.pods[1]
	uplink := link{n.lan, "lan0"}
	for _, c := range []struct {
		source net.HardwareAddr
		whose  string
		want   int
	}{
		{attacker.mac, "guest 1's MAC", probes},
		{victim.mac, "guest 2's MAC", 0},
		{unknown, "an invented MAC", 0},
	} {
		got, err := count(link{attacker.netns, ifName}, uplink, onLAN, c.source)
		if err != nil {
			return err
		}
		say("spoofing", "pod 1 -> uplink with %s as source: %d of %d pass", c.whose, got, probes)
		if got != c.want {
			return fmt.Errorf("want %d", c.want)
		}
	}
	ping, err := attacker.guest.Ping(ctx, guestAddress(1).Addr(), 3)
	if err != nil {
		return err
	}
	say("spoofing", "guest 2 is still reached: %d of %d pings answered", ping.Received, ping.Sent)
	if ping.Received != ping.Sent {
		return errors.New("the victim lost its traffic")
	}
	return nil
}

func (n *node) showPorts(ctx context.Context) error {
	out, err := n.host.run(ctx, n.binary, "ports")
	if err != nil {
		return err
	}
	say("$", "tapbridge ports")
	fmt.Print(out)
	return nil
}

func (n *node) showRemoval(ctx context.Context) error {
	for i, p := range n.pods {
		began := time.Now()
		if err := n.detach(ctx, p); err != nil {
			return fmt.Errorf("DEL: %w", err)
		}
		say("DEL", "pod %d, while its guest still holds the tap (%v)", i+1, time.Since(began).Round(100*time.Microsecond))
	}
	out, err := n.host.run(ctx, "bridge", "link", "show")
	if err != nil {
		return err
	}
	say("$", "bridge link show   # the two ports that were there before")
	fmt.Print(out)
	if strings.Count(out, "\n") != 2 {
		return errors.New("the bridge has other ports than before")
	}
	for _, p := range n.pods {
		if left, err := p.run(ctx, "ip", "-o", "link"); err != nil || strings.Count(left, "\n") != 1 {
			return errors.Join(fmt.Errorf("the pod is left with %q", left), err)
		}
	}
	return nil
}

// link is a device in a namespace.
type link struct {
	netns
	name string
}

// count sends frames out of one link and counts how many come by at another, in
// either direction.
func count(from, to link, dst, src net.HardwareAddr) (int, error) {
	in, err := to.open()
	if err != nil {
		return 0, err
	}
	defer unix.Close(in)
	out, err := from.open()
	if err != nil {
		return 0, err
	}
	defer unix.Close(out)
	tag := fmt.Appendf(nil, "tapbridge demo %d", time.Now().UnixNano())
	frame := append(append(append(bytes.Clone(dst), src...), etherType>>8, etherType&0xff), tag...)
	for range probes {
		if _, err := unix.Write(out, frame); err != nil {
			return 0, fmt.Errorf("send on %q: %w", from.name, err)
		}
	}
	return receive(in, tag)
}

// receive counts frames with the tag, until all are there or patience ends.
func receive(fd int, tag []byte) (got int, err error) {
	buf := make([]byte, 2048)
	for deadline := time.Now().Add(patience); got < probes; {
		left := time.Until(deadline)
		if left <= 0 {
			return got, nil
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return got, err
		}
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err == nil && bytes.Contains(buf[:n], tag) {
			got++
		}
	}
	return got, nil
}

// open makes a packet socket on the link.
func (l link) open() (fd int, err error) {
	err = ns.WithNetNSPath(l.path(), func(ns.NetNS) error {
		dev, err := net.InterfaceByName(l.name)
		if err != nil {
			return fmt.Errorf("%q: %w", l.name, err)
		}
		protocol := uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: dev.Index}); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	return fd, err
}
