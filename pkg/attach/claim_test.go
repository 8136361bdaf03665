package attach

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
)

func guest(s string) mac.Addr {
	a, err := mac.Parse(s)
	if err != nil {
		panic(err)
	}
	return a
}

// second is an attachment of another container beside wish.
func second(table port.Table, g string) port.Attachment {
	a := wish(port.Tap)
	a.ID, a.Table, a.Guest = port.ID{ContainerID: "beef", IfName: "net2"}, table, guest(g)
	a.Options = port.Options{}
	return a
}

// Two guests must never cut each other off; every pair of tables, because what
// the kernel knows of the first differs.
func TestClaims(t *testing.T) {
	for _, c := range []struct {
		name, first, second string
		refused             bool
	}{
		{"the same MAC", "52:54:00:12:34:56", "52:54:00:12:34:56", true},
		{"the MAC of the first's port", "52:54:00:12:34:56", "fe:54:00:12:34:56", true},
		{"a port MAC that is the first's", "fe:54:00:12:34:56", "52:54:00:12:34:56", true},
		{"fa and fe", "fa:54:00:12:34:56", "fe:54:00:12:34:56", true},
		{"fe and fa", "fe:54:00:12:34:56", "fa:54:00:12:34:56", true},
		{"the same but for the first byte", "52:54:00:12:34:56", "02:54:00:12:34:56", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			for _, table := range []port.Table{port.Kernel, port.Sticky} {
				first := second(table, c.first)
				first.ID = wish(port.Tap).ID
				n.mustApply(first)
				for _, table := range []port.Table{port.Kernel, port.Roaming} {
					n.claims(second(table, c.second), c.refused, first)
				}
				if err := n.remove(first.ID); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func (n *node) claims(a port.Attachment, refused bool, holder port.Attachment) {
	n.Helper()
	before := n.world()
	err := n.apply(a)
	if refused != errors.Is(err, ErrTaken) {
		n.Errorf("guest %s beside %s, table %s beside %s: %v", a.Guest, holder.Guest, a.Table, holder.Table, err)
	}
	if refused && err != nil && (!strings.Contains(err.Error(), holder.PortName()) || !strings.Contains(err.Error(), holder.ContainerID)) {
		n.Errorf("the refusal does not name port and owner: %v", err)
	}
	if err := n.remove(a.ID); err != nil {
		n.Fatal(err)
	}
	n.wantWorld(before, "after the claim")
}

// A third guest that shares the address of its port with two others is compared
// with both, though the bridge has one entry only.
func TestClaimBehindASharedPortMAC(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for i, g := range []string{"52:54:00:12:34:56", "02:54:00:12:34:56"} {
		a := second(port.Kernel, g)
		a.ID = port.ID{ContainerID: fmt.Sprint(i), IfName: fmt.Sprintf("eth%d", i)}
		n.mustApply(a)
	}
	if err := n.apply(second(port.Kernel, "02:54:00:12:34:56")); !errors.Is(err, ErrTaken) {
		t.Errorf("the second guest's MAC again: %v", err)
	}
	if err := n.apply(second(port.Kernel, "52:54:00:12:34:56")); !errors.Is(err, ErrTaken) {
		t.Errorf("the first guest's MAC again: %v", err)
	}
	if err := n.apply(second(port.Kernel, "06:54:00:12:34:56")); err != nil {
		t.Errorf("a MAC of its own: %v", err)
	}
}

func TestClaimAgainstTheBridge(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.host.Run(t, "ip", "link", "set", "up0", "address", "02:00:00:00:00:77")
	n.host.Run(t, "bridge", "fdb", "add", "02:00:00:00:00:88", "dev", "up0", "master", "static")
	n.host.Run(t, "bridge", "fdb", "add", "02:00:00:00:00:99", "dev", "up0", "master", "dynamic")
	n.host.Run(t, "ip", "link", "add", "vnet0", "address", "fe:00:00:00:00:66", "type", "veth", "peer", "name", "vnet1")
	n.host.Run(t, "ip", "link", "set", "vnet0", "master", "br0")
	before := n.world()
	for g, owner := range map[string]string{
		bridgeMAC:           `bridge "br0"`,
		"02:00:00:00:00:77": `is that of "up0" on bridge "br0": give the guest another one`, // not an entry to delete
		"02:00:00:00:00:88": `"up0" on bridge "br0" has a static entry for it`,
	} {
		if err := n.apply(second(port.Sticky, g)); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), owner) {
			t.Errorf("guest %s: %v, want a refusal that names %s", g, err, owner)
		}
	}
	n.wantWorld(before, "refused:")
	// A stranger's port with the derived MAC hides neither of two guests.
	n.mustApply(second(port.Kernel, "52:00:00:00:00:66"))
	third := second(port.Kernel, "52:00:00:00:00:66")
	third.ID = wish(port.Tap).ID
	if err := n.apply(third); !errors.Is(err, ErrTaken) {
		t.Errorf("a second guest behind a stranger's port: %v", err)
	}
	if err := n.remove(second(port.Kernel, "52:00:00:00:00:66").ID); err != nil {
		t.Error(err)
	}
	// What the uplink has merely learned is taken over.
	learned := second(port.Sticky, "02:00:00:00:00:99")
	n.mustApply(learned)
	if err := n.drift(learned); err != nil {
		t.Error(err)
	}
}

// Of many that ask for one MAC at once, one gets it.
func TestRaceForOneMAC(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() {
			a := second(port.Kernel, "52:54:00:12:34:56")
			a.ID = port.ID{ContainerID: fmt.Sprint(i), IfName: fmt.Sprintf("eth%d", i)}
			errs[i] = n.apply(a)
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, ErrTaken):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d got the MAC, want 1", won, len(errs))
	}
}
