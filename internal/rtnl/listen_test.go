package rtnl

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

// Every kind of change is heard, in the own namespace and behind a veth, and told
// apart from those elsewhere.
func TestListen(t *testing.T) {
	t.Parallel()
	host, pod, elsewhere := nstest.New(t), nstest.New(t), nstest.New(t)
	nstest.Bridge(t, host, "br0", "02:00:00:00:00:01")
	nstest.Veth(t, host, "v0", pod, "v1")
	host.Run(t, "ip", "link", "set", "v0", "master", "br0", "group", "77")
	nstest.Bridge(t, elsewhere, "br0", "02:00:00:00:00:02")
	var l *Listener
	var v0 Link
	host.Do(func() {
		c, err := Open()
		if err == nil {
			defer c.Close()
			v0, err = c.LinkNamed("v0")
		}
		if err == nil {
			l, err = Listen()
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	all := make(chan Event, 1000)
	ended := make(chan error, 1)
	go func() {
		for {
			events, err := l.Next()
			if err != nil {
				ended <- err
				return
			}
			for _, e := range events {
				all <- e
			}
		}
	}()
	inHost := func(e Event) bool { return e.NetNsID == NoPeer && e.Index == v0.Index }
	inPod := func(e Event) bool { return e.NetNsID == v0.NetNsID && e.Index == v0.PeerIndex }
	for _, c := range []struct {
		in      *nstest.NS
		command string
		is      func(Event) bool
	}{
		{host, "ip link set v0 mtu 1400", func(e Event) bool { return inHost(e) && e.Name == "v0" && e.Group == 77 }},
		{host, "bridge link set dev v0 learning off", func(e Event) bool { return inHost(e) && e.Kind == unix.RTM_NEWLINK }},
		{host, "bridge fdb add 02:00:00:00:00:07 dev v0 master static", func(e Event) bool {
			return inHost(e) && e.Kind == unix.RTM_NEWNEIGH && e.MAC == mac.Addr{2, 0, 0, 0, 0, 7}
		}},
		{host, "tc qdisc add dev v0 ingress", func(e Event) bool { return inHost(e) && e.Kind == unix.RTM_NEWQDISC }},
		{pod, "ip link set v1 down", func(e Event) bool { return inPod(e) && e.Name == "v1" }},
		{pod, "ip addr add 10.0.0.1/24 dev v1", func(e Event) bool { return inPod(e) && e.Kind == unix.RTM_NEWADDR }},
		{pod, "tc qdisc add dev v1 ingress", func(e Event) bool { return inPod(e) && e.Kind == unix.RTM_NEWQDISC }},
	} {
		elsewhere.Run(t, "ip", "link", "set", "br0", "mtu", "1400")
		words := strings.Fields(c.command)
		c.in.Run(t, words[0], words[1:]...)
		heard(t, c.command, all, c.is, []int{NoPeer, v0.NetNsID})
	}
	l.Close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func heard(t *testing.T, what string, all <-chan Event, is func(Event) bool, namespaces []int) {
	t.Helper()
	for end := time.After(10 * time.Second); ; {
		select {
		case e := <-all:
			if !slices.Contains(namespaces, e.NetNsID) {
				t.Errorf("an event of a namespace that is nobody's: %+v", e)
			}
			if is(e) {
				return
			}
		case <-end:
			t.Fatalf("%s: not heard", what)
		}
	}
}
