// Command demo shows tapbridge's main job on a node of its own, made of network
// namespaces: two pods get a bridge port each through libcni, a guest with a real
// network stack opens each tap, and what must pass passes and what must not does
// not. It says what it does, exits with 1 when something is not as promised, and
// leaves nothing behind, also when it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tapbridge/tapbridge/test/guest"
)

func main() {
	kind := flag.String("guest", "netstack", "netstack (in this process) or qemu (boots Linux)")
	bin := flag.String("bin", "bin", "folder with the tapbridge binary")
	conflist := flag.String("conflist", "examples/tap.conflist", "network configuration list")
	flag.Parse()
	signal.Ignore(syscall.SIGPIPE) // to end there would leave the node behind
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	n, err := run(ctx, *kind, *bin, *conflist)
	left := n.remove()
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err = errors.Join(err, left); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
	say("done", "everything was as it should be, and everything is removed")
}

// run returns the node with an error too: what there is of it must be removed.
func run(ctx context.Context, kind, bin, conflist string) (*node, error) {
	start, err := starter(ctx, kind)
	if err != nil {
		return &node{}, err
	}
	n, err := newNode(ctx, bin, conflist)
	if err != nil {
		return n, err
	}
	for i := range n.pods {
		if err := n.attach(ctx, i); err != nil {
			return n, err
		}
	}
	if err := n.boot(ctx, start); err != nil {
		return n, err
	}
	for _, show := range []func(context.Context) error{n.showTraffic, n.showFlooding, n.showSpoofing, n.showPorts, n.showRemoval} {
		if err := show(ctx); err != nil {
			return n, err
		}
	}
	return n, ctx.Err()
}

// starter returns what starts a guest, after getting what it needs.
func starter(ctx context.Context, kind string) (func(context.Context, guest.NIC) (guest.Guest, error), error) {
	switch kind {
	case "netstack":
		return guest.Netstack, nil
	case "qemu":
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		tools, err := guest.FindTools(ctx, filepath.Join(cache, "tapbridge"), func(format string, args ...any) { say("qemu", format, args...) })
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, nic guest.NIC) (guest.Guest, error) { return guest.QEMU(ctx, nic, tools) }, nil
	}
	return nil, fmt.Errorf("-guest %q: want netstack or qemu", kind)
}

// say prints one progress line.
func say(topic, format string, args ...any) {
	fmt.Printf("%-9s %s\n", topic, fmt.Sprintf(format, args...))
}

// guestAddress is the address of guest i.
func guestAddress(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 55, 0, byte(11 + i)}), 24)
}

func (n *node) boot(ctx context.Context, start func(context.Context, guest.NIC) (guest.Guest, error)) error {
	for i, p := range n.pods {
		began := time.Now()
		nic := guest.NIC{NetNS: p.netns.path(), Tap: "tap1", MAC: p.mac, Addr: guestAddress(i), MTU: p.mtu}
		g, err := start(ctx, nic)
		if err != nil {
			return fmt.Errorf("start guest %d: %w", i+1, err)
		}
		p.guest = g
		say("guest", "%d is up: %s, MAC %s (%v)", i+1, nic.Addr, nic.MAC, time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// showTraffic lets the guests talk to each other.
func (n *node) showTraffic(ctx context.Context) error {
	for i, p := range n.pods {
		other := guestAddress(1 - i).Addr()
		ping, err := p.guest.Ping(ctx, other, 5)
		if err != nil {
			return err
		}
		say("ping", "guest %d -> guest %d: %d of %d answered, median %v", i+1, 2-i, ping.Received, ping.Sent, ping.Median().Round(time.Microsecond))
		if ping.Received != ping.Sent {
			return errors.New("a ping was lost")
		}
	}
	const port, size = 7000, 8 << 20
	if err := n.pods[1].guest.Serve(port); err != nil {
		return err
	}
	sent, err := n.pods[0].guest.Transfer(ctx, netip.AddrPortFrom(guestAddress(1).Addr(), port), size)
	if err != nil {
		return err
	}
	say("tcp", "guest 1 -> guest 2: %d MiB in %v, %.0f Mbit/s", sent.Bytes>>20, sent.Took.Round(time.Millisecond), float64(sent.Bytes)*8/1e6/sent.Took.Seconds())
	return nil
}
