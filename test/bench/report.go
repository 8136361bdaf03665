package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// target is a promise and what came of it.
type target struct {
	says string
	got  float64
	sign string // "≤" or "≥"
	want float64
}

func (t target) met() bool {
	if t.sign == "≥" {
		return t.got >= t.want
	}
	return t.got <= t.want
}

func (t target) String() string {
	verdict := "missed"
	if t.met() {
		verdict = "met"
	}
	return fmt.Sprintf("%s: %.2f %s", t.says, t.got, verdict)
}

// report is what a run has found out, in the order of its parts.
type report struct {
	body    bytes.Buffer
	targets []target
	plots   map[string]drawing // by file name
}

func newReport() *report { return &report{plots: map[string]drawing{}} }

func (r *report) promise(says string, got float64, sign string, want float64) {
	r.targets = append(r.targets, target{says, got, sign, want})
}

func (r *report) heading(title string) { fmt.Fprintf(&r.body, "## %s\n\n", title) }

func (r *report) text(format string, args ...any) { fmt.Fprintf(&r.body, format+"\n\n", args...) }

// table takes rows of as many cells as the first, which is the heading.
func (r *report) table(rows ...[]string) {
	for i, row := range rows {
		fmt.Fprintf(&r.body, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&r.body, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
	fmt.Fprintln(&r.body)
}

// plot shows a drawing, in a file of that name beside the text.
func (r *report) plot(name, caption string, d drawing) {
	r.plots[name] = d
	fmt.Fprintf(&r.body, "![%s](benchmarks/%s.svg)\n\n", caption, name)
}

// write makes DIR/benchmarks.md and DIR/benchmarks/*.svg.
func (r *report) write(dir, about string) error {
	if err := os.MkdirAll(filepath.Join(dir, "benchmarks"), 0o755); err != nil {
		return err
	}
	for name, d := range r.plots {
		if err := d.save(filepath.Join(dir, "benchmarks", name+".svg")); err != nil {
			return fmt.Errorf("plot %s: %w", name, err)
		}
	}
	text := "# Benchmarks\n\n" + about + "\n\n## Targets\n\n" + r.verdicts() + r.body.String()
	return os.WriteFile(filepath.Join(dir, "benchmarks.md"), []byte(strings.TrimRight(text, "\n")+"\n"), 0o644)
}

func (r *report) verdicts() string {
	var table report
	rows := [][]string{{"", "measured", "target", ""}}
	for _, t := range r.targets {
		verdict := "**missed**"
		if t.met() {
			verdict = "met"
		}
		rows = append(rows, []string{t.says, fmt.Sprintf("%.2f", t.got), fmt.Sprintf("%s %g", t.sign, t.want), verdict})
	}
	table.table(rows...)
	return table.body.String()
}
