package rtnl

import (
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// TestBehindNothing is what a DEL meets while the pod's namespace goes: the port
// still names it, but the id is no longer valid.
func TestBehindNothing(t *testing.T) {
	t.Parallel()
	const noNamespace = 4711
	c, err := OpenAt(nstest.New(t).Path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Behind(noNamespace).Links(); !IsNotExist(err) {
		t.Errorf("list: %v", err)
	}
	if err := c.Behind(noNamespace).Delete(1); !IsNotExist(err) {
		t.Errorf("delete: %v", err)
	}
	if err := c.Behind(noNamespace).DeleteGroup(1); !IsNotExist(err) {
		t.Errorf("delete group: %v", err)
	}
	if _, err := c.Links(); err != nil {
		t.Errorf("the connection is of no use afterwards: %v", err)
	}
}
