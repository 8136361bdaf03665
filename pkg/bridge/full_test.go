package bridge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// The kernel says "exchange full" of a bridge that has all ports it can have.
func TestFullBridge(t *testing.T) {
	const most = 1023
	batch := "link add br0 type bridge\nlink add one type ifb\n"
	for i := range most {
		batch += fmt.Sprintf("link add d%d numtxqueues 1 numrxqueues 1 master br0 type ifb\n", i)
	}
	list := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(list, []byte(batch), 0o600); err != nil {
		t.Fatal(err)
	}
	inNamespace(t, func(ns *nstest.NS, c *rtnl.Conn) {
		ns.Run(t, "ip", "-batch", list)
		one, err := c.LinkNamed("one")
		if err == nil {
			err = Join(c, one.Index, find(t, c, "br0"))
		}
		if !errors.Is(err, unix.EXFULL) || !strings.Contains(err.Error(), "use another bridge") {
			t.Errorf("join: %v", err)
		}
	})
}
