package rtnl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// Somebody in a pod gives a device as many other names as the kernel lets it have. What
// is asked about it, and told, is longer than 64 KiB then; it is there as before, and so
// are the devices beside it.
func TestDeviceOfManyNames(t *testing.T) {
	t.Parallel()
	host, pod := nstest.New(t), nstest.New(t)
	nstest.Veth(t, host, "v0", pod, "v1")
	nstest.Veth(t, pod, "other0", pod, "other1")
	giveNames(t, pod, "v1")
	var c *Conn
	var l *Listener
	var v0 Link
	host.Do(func() {
		var err error
		if c, err = Open(); err == nil {
			v0, err = c.LinkNamed("v0")
		}
		if err == nil {
			l, err = Listen()
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	defer c.Close()
	defer l.Close()
	inPod, err := OpenAt(pod.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer inPod.Close()
	behind := c.Behind(v0.NetNsID)

	list, err := inPod.Links()
	if err != nil || len(list) != 4 { // with the loopback
		t.Errorf("%d devices are listed, error %v", len(list), err)
	}
	for way, named := range map[string]func(string) (Link, error){"there": inPod.LinkNamed, "behind the veth": behind.LinkNamed} {
		v1, err := named("v1")
		if err != nil || v1.Index != v0.PeerIndex || !v1.AltNames {
			t.Errorf("%s, v1 is %+v, error %v", way, v1, err)
		}
	}
	if _, plugged, err := behind.Received("v1"); err != nil || !plugged {
		t.Errorf("its counters: plugged %t, error %v", plugged, err)
	}

	pod.Run(t, "ip", "link", "set", "v1", "group", "77")
	for end := time.Now().Add(10 * time.Second); ; {
		events, err := l.Next()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Kind == unix.RTM_NEWLINK && e.NetNsID == v0.NetNsID && e.Index == v0.PeerIndex && e.Name == "v1" && e.Group == 77 {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatal("the change of its group is not heard")
		}
	}
}

// giveNames gives a device other names of the greatest length until the kernel refuses.
func giveNames(t *testing.T, in *nstest.NS, device string) {
	t.Helper()
	const most, length = 496, 127
	var batch strings.Builder
	for i := range most {
		fmt.Fprintf(&batch, "link property add dev %s altname %s%03d\n", device, strings.Repeat("a", length-3), i)
	}
	list := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(list, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	in.Run(t, "ip", "-batch", list)
}
