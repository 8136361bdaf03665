package rtnl

import (
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
