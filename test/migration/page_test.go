package migration

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The page has a run of every kind, which the same check would have passed.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/macTable.md")
	must(t, err)
	for _, k := range kinds {
		o := outcome{kind: k}
		for _, place := range places {
			prefix := fmt.Sprintf("| %s | %s | ", k, place)
			var lost [3]int
			for line := range strings.Lines(string(page)) {
				if rest, is := strings.CutPrefix(line, prefix); is && !strings.Contains(rest, "/") { // not of the other table
					_, err = fmt.Sscanf(rest, "%d | %d | %d |", &lost[0], &lost[1], &lost[2])
				}
			}
			if err != nil || lost == [3]int{} {
				t.Errorf("docs/macTable.md has no row %q of what was lost: %v", prefix, err)
			}
			o.lost = append(o.lost, lost)
		}
		if !t.Failed() {
			o.check(t)
		}
	}
}
