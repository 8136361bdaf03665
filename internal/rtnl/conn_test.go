package rtnl

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// A dump that has failed does not keep the connection from the next one.
func TestDumpAfterAFailedOne(t *testing.T) {
	c, err := OpenAt(nstest.New(t).Path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	unread := Message{unix.RTM_GETLINK, unix.NLM_F_DUMP, []nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC)}}
	if err := c.socket.send(unread); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Links(); err == nil {
		t.Error("an unread dump has not been in the way: the test shows nothing")
	}
	if _, err := c.Links(); err != nil {
		t.Error(err)
	}
}

// Where devices come and go all the time no list is consistent, but those that stay are
// in it.
func TestLinksWhileOthersComeAndGo(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	const pairs = 150
	var batch strings.Builder
	for i := range pairs {
		fmt.Fprintf(&batch, "link add a%d type veth peer name b%d\n", i, i)
	}
	list := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(list, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Run(t, "ip", "-batch", list)
	c, err := OpenAt(ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var stop atomic.Bool
	rested := make(chan error)
	go func() {
		var err error
		for !stop.Load() && err == nil {
			err = comeAndGo(ns.Path)
		}
		rested <- err
	}()
	inconsistent := 0
	for range 30 {
		_, consistent, err := c.pass(all, unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC))
		if err != nil {
			t.Fatal(err)
		}
		if !consistent {
			inconsistent++
		}
		links, err := c.Links()
		if err != nil {
			t.Fatal(err)
		}
		stay := slices.DeleteFunc(links, func(l Link) bool { return l.Name[0] != 'a' && l.Name[0] != 'b' })
		if len(stay) != 2*pairs {
			t.Errorf("%d of %d devices are listed", len(stay), 2*pairs)
		}
	}
	stop.Store(true)
	if err := <-rested; err != nil {
		t.Fatal(err)
	}
	if inconsistent == 0 {
		t.Error("every pass was consistent: this test shows nothing")
	}
}

// comeAndGo is a device's whole life.
func comeAndGo(path string) error {
	c, err := OpenAt(path)
	if err != nil {
		return err
	}
	defer c.Close()
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	name := nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("passing"))
	if err := c.Change(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC), name, info); err != nil {
		return err
	}
	return c.Change(unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), name)
}
