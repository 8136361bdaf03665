package conformance

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

const reliability = "../../docs/reliability.md"

// line is a row as the page has it.
func (t *tally) line(name string) string {
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d |", name, t.calls, t.faults, t.kills, t.leftovers, t.wrong)
}

// compareFaults holds the page's table against what was measured, in numbers when
// everything was struck. How many calls there are may differ a little: with what
// others do on the machine the Go runtime asks it more often or less.
func compareFaults(t *testing.T, rows map[string]*tally) {
	t.Helper()
	page, err := os.ReadFile(reliability)
	if err != nil {
		t.Fatal(err)
	}
	var measured []string
	injected := 0
	for name, row := range rows {
		measured = append(measured, row.line(name))
		injected += row.faults + row.kills
		if !row.onPage(name, string(page)) {
			t.Errorf("docs/reliability.md does not say so: %s", row.line(name))
		}
	}
	slices.Sort(measured)
	t.Logf("%d blows:\n| verb | mode | calls | failed | killed | leftovers | wrong states |\n|---|---|---|---|---|---|---|\n%s", injected, strings.Join(measured, "\n"))
	if every && injected < 1000 {
		t.Errorf("only %d blows, want 1000", injected)
	}
}

func (t *tally) onPage(name, page string) bool {
	_, rest, found := strings.Cut(page, "| "+name+" | ")
	var told tally
	_, err := fmt.Sscanf(rest, "%d | %d | %d | %d | %d |", &told.calls, &told.faults, &told.kills, &told.leftovers, &told.wrong)
	if !found || err != nil || told.leftovers != t.leftovers || told.wrong != t.wrong {
		return false
	}
	return !every || near(told.calls, t.calls) && near(told.faults, t.faults) && near(told.kills, t.kills)
}

// near allows for one in ten.
func near(a, b int) bool { return 10*max(a-b, b-a) <= max(a, b) }
