package bench

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/plot/plotter"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

const mtu = 1500

// attachment is that of a guest by its number, in a pod that it shares with others.
func attachment(mode port.Mode, table port.Table, number int) port.Attachment {
	return port.Attachment{
		ID:      port.ID{ContainerID: "guest", IfName: fmt.Sprint("net", number)},
		Network: "vms", Bridge: "br0", Mode: mode, Table: table,
		Guest: mac.Addr{0x52, 0x54, 1, 0, byte(number >> 8), byte(number)}, MTU: mtu, PortMTU: mtu,
		Access: tap.Access{Owner: 107, Group: 107},
	}
}

// attach makes attachments on br0, as the plugin does.
func (n *node) attach(pod *nstest.NS, all ...port.Attachment) {
	n.t.Helper()
	n.Do(func() {
		s, err := attach.OpenPod(pod.Path)
		if err != nil {
			n.t.Fatal(err)
		}
		defer s.Close()
		for _, a := range all {
			br, err := bridge.Find(s.Host(), a.Bridge)
			if err == nil {
				err = s.Apply(a, br)
			}
			if err != nil {
				n.t.Fatal(err)
			}
		}
	})
}

// grow gives br0 ports with numbers, in pods of a hundred.
func (n *node) grow(from, to int) {
	n.t.Helper()
	const together = 100
	for from < to {
		var some []port.Attachment
		for ; from < to && len(some) < together; from++ {
			some = append(some, attachment(port.Tap, port.Sticky, from))
		}
		n.attach(nstest.New(n.t), some...)
	}
}

// growth adds a port to ever larger bridges, in turns with a bridge of few.
func growth(t *testing.T, e extent, p programs, r *report) {
	few, many := newNode(t, 1), newNode(t, 1)
	few.grow(0, e.few)
	peerConf := strings.Replace(bridgeConf, "br1", "br0", 1) // as many ports there
	type point struct{ add, check, del, peer sample }
	measure := func(n *node, into *point) {
		conf := ours(port.Tap)
		took, result := n.run(n.plugin(p.tapbridge, "ADD", 0, "net1", conf))
		into.add.took(took)
		took, _ = n.run(n.plugin(p.tapbridge, "CHECK", 0, "net1", n.checking(conf, result)))
		into.check.took(took)
		took, _ = n.run(n.plugin(p.tapbridge, "DEL", 0, "net1", conf))
		into.del.took(took)
		took, _ = n.run(n.plugin(p.bridge, "ADD", 0, "net2", peerConf))
		into.peer.took(took)
		n.run(n.plugin(p.bridge, "DEL", 0, "net2", peerConf))
	}
	rows := [][]string{{"ports", "ADD", "CHECK", "DEL", "`bridge` ADD", fmt.Sprintf("ADD, of that at %d", e.few), "CHECK", "`bridge` ADD"}}
	plot := lines{x: "ports on the bridge", y: "ms above the floor"}
	adds, checks, dels, peers := plotter.XYs{}, plotter.XYs{}, plotter.XYs{}, plotter.XYs{}
	var last, lastCheck float64
	size := 0
	for _, next := range e.sizes {
		many.grow(size, next)
		size = next
		var floor sample
		var at, base point
		for range e.grown {
			took, _ := many.run(call{argv: []string{p.nothing}})
			floor.took(took)
			measure(few, &base)
			measure(many, &at)
		}
		above := func(s sample) sample { return s.less(floor.median()) }
		last = ratio(above(at.add).median(), above(base.add).median())
		lastCheck = ratio(above(at.check).median(), above(base.check).median())
		rows = append(rows, []string{
			fmt.Sprint(size), above(at.add).String(), above(at.check).String(), above(at.del).String(), above(at.peer).String(),
			fmt.Sprintf("%.2f", last), fmt.Sprintf("%.2f", lastCheck), fmt.Sprintf("%.2f", ratio(above(at.peer).median(), above(base.peer).median())),
		})
		dot := func(s sample) plotter.XY { return plotter.XY{X: float64(size), Y: above(s).median()} }
		adds, checks, dels, peers = append(adds, dot(at.add)), append(checks, dot(at.check)), append(dels, dot(at.del)), append(peers, dot(at.peer))
	}
	r.heading("A bridge that fills up")
	r.text("Milliseconds above the floor, mode `tap`, with so many ports of tapbridge on the bridge (it holds 1023). The ratios are to a bridge of %d ports, "+
		"measured in the same loop. `bridge` adds to the same bridge. What grows is the kernel's work, above all in the message by which a port joins: "+
		"`br_add_if` goes through all ports several times. tapbridge lists nothing.", e.few)
	r.table(rows...)
	plot.add("ADD", adds)
	plot.add("CHECK", checks)
	plot.add("DEL", dels)
	plot.add("bridge ADD", peers)
	r.plot("growth", "ADD, CHECK and DEL as the bridge fills up", &plot)
	largest := slices.Max(e.sizes)
	r.promise(fmt.Sprintf("ADD with %d ports, of that with %d", largest, e.few), last, "≤", 1.15)
	r.promise(fmt.Sprintf("CHECK with %d ports, of that with %d", largest, e.few), lastCheck, "≤", 1.15)
}
