package attach_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// migrationTable is what a live migration does to frames, as docs/macTable.md
// has it: how many of 10 go from the client to the VM / from the VM to the
// client. "0→10": none until the VM has spoken, then 10.
const migrationTable = `
| table | client on the | before | target prepared | cut over | source pod deleted | or rolled back |
|---|---|---|---|---|---|---|
| kernel | source node | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 |
| kernel | target node | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 |
| kernel | network outside | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 |
| sticky | source node | 10 / 10 | 10 / 10 | 0 / 10 | 10 / 10 | 10 / 10 |
| sticky | target node | 10 / 10 | 0 / 10 | 10 / 10 | 10 / 10 | 10 / 10 |
| sticky | network outside | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 |
| static | source node | 10 / 10 | 10 / 10 | 0 / 10 | 0 / 10 | 10 / 10 |
| static | target node | 10 / 10 | 0→10 / 10 | 0 / 10 | 0 / 10 | 10 / 10 |
| static | network outside | 10 / 10 | 10 / 10 | 0 / 10 | 0 / 10 | 10 / 10 |
| roaming | source node | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 |
| roaming | target node | 10 / 10 | 0→10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 |
| roaming | network outside | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 |
| follow | source node | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 |
| follow | target node | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 |
| follow | network outside | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 | 10 / 10 |
`

var lanPlaces = []string{"source node", "target node", "network outside"}

// lanMigration is two nodes on one switch, a VM that moves from the first to
// the second, and a client in each place.
type lanMigration struct {
	*testing.T
	mode           port.Mode
	table          port.Table
	source, target *lanNode
	clients        []*guest // one for each of lanPlaces
	old, fresh     *guest   // the VM on the source, on the target
	vm             *guest   // the one that runs
}

func lanMigrate(t *testing.T, mode port.Mode, table port.Table) *lanMigration {
	t.Helper()
	m := &lanMigration{T: t, mode: mode, table: table, source: lanBare(t), target: lanBare(t)}
	outside := lanBare(t)
	for i, n := range []*lanNode{m.source, m.target, outside} {
		nstest.Bridge(t, n.NS, lanBridge, fmt.Sprintf("02:00:00:00:ff:%02x", i+1))
		m.clients = append(m.clients, n.guest(t, port.Veth, port.Kernel, guestMAC(fmt.Sprintf("02:00:00:00:02:%02x", i+1))))
	}
	lanPlug(t, m.source, outside, "source")
	lanPlug(t, m.target, outside, "target")
	if table == port.Follow {
		m.source.follow(t)
		m.target.follow(t)
	}
	m.old = m.admit(m.source)
	m.vm = m.old
	if table == port.Follow { // it has booted
		lanExpect(m, lanBroadcast("the VM's first frame", m.vm.lanStation, m.clients[0].lanStation, 10))
		m.awaitEntries(true, false)
	}
	return m
}

// lanPlug connects a node's bridge with a port of that name on the switch.
func lanPlug(t *testing.T, n, sw *lanNode, name string) {
	t.Helper()
	nstest.Veth(t, n.NS, "uplink", sw.NS, name)
	n.Run(t, "ip", "link", "set", "uplink", "master", lanBridge)
	sw.Run(t, "ip", "link", "set", name, "master", lanBridge)
	nstest.WaitForwarding(t, n.NS, "uplink")
	nstest.WaitForwarding(t, sw.NS, name)
}

// admit gives the VM a port on the node. The VMM opens the tap at once, on the
// target long before the VM runs there.
func (m *lanMigration) admit(n *lanNode) *guest {
	m.Helper()
	return n.guest(m, m.mode, m.table, guestMAC("52:54:00:12:34:56"))
}

func (m *lanMigration) prepare() { m.fresh = m.admit(m.target) }

// cutOver stops the VM on the source; on the target it begins as VMMs let it,
// with a broadcast.
func (m *lanMigration) cutOver() {
	m.Helper()
	m.old.wire.Close()
	m.vm = m.fresh
	lanExpect(m, lanBroadcast("the VM's announcement", m.vm.lanStation, m.clients[0].lanStation, 10))
	if m.table == port.Follow {
		m.awaitEntries(false, true)
	}
}

// leave deletes one of the VM's pods. An entry that stayed behind, on the uplink
// maybe, would be there for good.
func (m *lanMigration) leave(g *guest) {
	m.Helper()
	g.del(m)
	for entry := range strings.Lines(g.node.Run(m, "bridge", "fdb", "show", "br", lanBridge)) {
		if strings.HasPrefix(entry, g.Guest.String()) && strings.Contains(entry, "static") {
			m.Errorf("after DEL the node still has the entry %q", entry)
		}
	}
}

func (m *lanMigration) toVM() []int {
	var flows []lanFlow
	for _, c := range m.clients {
		flows = append(flows, c.to("", m.vm.lanStation, 10))
	}
	return lanCount(flows...)
}

func (m *lanMigration) fromVM() []int {
	var flows []lanFlow
	for _, c := range m.clients {
		flows = append(flows, m.vm.to("", c.lanStation, 10))
	}
	return lanCount(flows...)
}

// measure is one column of the table.
func (m *lanMigration) measure() (column []string) {
	before, from, after := m.toVM(), m.fromVM(), m.toVM()
	for i := range m.clients {
		to := fmt.Sprint(before[i])
		if after[i] != before[i] {
			to += fmt.Sprintf("→%d", after[i])
		}
		column = append(column, fmt.Sprintf("%s / %d", to, from[i]))
	}
	return column
}

func TestMigration(t *testing.T) {
	t.Parallel()
	for _, mode := range []port.Mode{port.Tap, port.HostTap} {
		for _, table := range append(slices.Clone(lanTables), port.Follow) {
			t.Run(fmt.Sprintf("%s %s", mode, table), func(t *testing.T) {
				t.Parallel()
				rows := lanRows(table, append(lanThrough(t, mode, table), lanBack(t, mode, table)))
				t.Logf("measured:\n%s", rows)
				if diff := cmp.Diff(lanRowsOf(table), rows); diff != "" {
					t.Errorf("frames (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// lanThrough is a migration that succeeds.
func lanThrough(t *testing.T, mode port.Mode, table port.Table) [][]string {
	t.Helper()
	m := lanMigrate(t, mode, table)
	columns := [][]string{m.measure()}
	m.prepare()
	columns = append(columns, m.measure())
	m.cutOver()
	columns = append(columns, m.measure())
	m.leave(m.old)
	return append(columns, m.measure())
}

// lanBack is one that is given up before the cut-over.
func lanBack(t *testing.T, mode port.Mode, table port.Table) []string {
	t.Helper()
	m := lanMigrate(t, mode, table)
	m.prepare()
	m.fromVM()
	m.fresh.wire.Close()
	m.leave(m.fresh)
	return m.measure()
}

// lanRows are the lines of the table for what was measured.
func lanRows(table port.Table, columns [][]string) string {
	var rows strings.Builder
	for i, place := range lanPlaces {
		fmt.Fprintf(&rows, "| %s | %s |", table, place)
		for _, column := range columns {
			fmt.Fprintf(&rows, " %s |", column[i])
		}
		rows.WriteString("\n")
	}
	return rows.String()
}

// lanRowsOf are the lines of the table as they should be.
func lanRowsOf(table port.Table) (rows string) {
	for line := range strings.Lines(migrationTable) {
		if strings.HasPrefix(line, fmt.Sprintf("| %s |", table)) {
			rows += line
		}
	}
	return rows
}

// TestMigrationPage holds the page against what TestMigration measures, and
// against the commands that TestMigrationRepairs tries.
func TestMigrationPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/macTable.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), migrationTable) {
		t.Errorf("docs/macTable.md does not have the measured table:\n%s", migrationTable)
	}
	for _, command := range []string{lanFree, lanWriteStatic, lanWriteSticky, lanMendFlags, lanMendLock} {
		if !strings.Contains(string(page), "`"+command+"`") {
			t.Errorf("docs/macTable.md does not have the command %q", command)
		}
	}
}

// The page's commands for an entry that is in the way, and for lost flags.
const (
	lanMendFlags   = "bridge link set dev $PORT learning off flood off guard on"
	lanMendLock    = "locked on" // after these where the network has macspoofchk
	lanFree        = "bridge fdb del $MAC dev $PORT master"
	lanWriteStatic = "bridge fdb replace $MAC dev $PORT master static"
	lanWriteSticky = "bridge fdb replace $MAC dev $PORT master static sticky"
)

// repair runs a command where one of the VM's ports is.
func (m *lanMigration) repair(command string, at *guest) {
	m.Helper()
	words := strings.Fields(strings.NewReplacer("$MAC", at.Guest.String(), "$PORT", at.PortName()).Replace(command))
	at.node.Run(m, words[0], words[1:]...)
}

// TestMigrationRepairs tells for each step how many frames of 10 reach the VM
// from the source node, the target node and outside.
func TestMigrationRepairs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		table port.Table
		steps func(m *lanMigration, reached func(string))
		want  []string
	}{
		"static": {port.Static, func(m *lanMigration, reached func(string)) {
			m.cutOver()
			reached("cut over")
			m.repair(lanWriteStatic, m.fresh)
			reached("written on the target")
		}, []string{"cut over [0 0 0]", "written on the target [10 10 10]"}},
		"sticky on the source": {port.Sticky, func(m *lanMigration, reached func(string)) {
			m.cutOver()
			reached("cut over")
			m.repair(lanFree, m.old)
			reached("freed on the source")
		}, []string{"cut over [0 10 10]", "freed on the source [10 10 10]"}},
		"sticky on the target": {port.Sticky, func(m *lanMigration, reached func(string)) {
			reached("prepared")
			m.repair(lanFree, m.fresh)
			reached("freed on the target")
			m.cutOver()
			reached("cut over")
			m.repair(lanWriteSticky, m.fresh)
			reached("written on the target")
		}, []string{"prepared [10 0 10]", "freed on the target [10 10 10]", "cut over [0 0 0]", "written on the target [0 10 10]"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := lanMigrate(t, port.Tap, c.table)
			m.prepare()
			m.fromVM()
			var got []string
			c.steps(m, func(step string) { got = append(got, fmt.Sprint(step, " ", m.toVM())) })
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("frames (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMigrationRepairOfFlags(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		locked bool
		mend   string
	}{
		"sticky":      {false, lanMendFlags},
		"macspoofchk": {true, lanMendFlags + " " + lanMendLock},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &lanMigration{T: t}
			g := lanNew(t, 1500).guest(t, port.Tap, port.Sticky, func(a *port.Attachment) { a.Locked = c.locked })
			unknown := lanFlow{what: "unknown unicast", from: g.node.outside, to: lanMAC("02:00:00:00:ee:ee"), at: []lanStation{g.lanStation}}
			unknown.want = 10
			m.repair("bridge link set dev $PORT locked off learning on flood on guard off", g)
			lanExpect(t, unknown)
			unknown.want = 0
			m.repair(c.mend, g)
			lanExpect(t, unknown)
			if wrong := g.inspected(t).Wrong(); len(wrong) > 0 {
				t.Errorf("afterwards: %q", wrong)
			}
		})
	}
}
