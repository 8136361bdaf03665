package port

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Difference is one thing that is not as it should be.
type Difference struct {
	Text string // for people

	// Field is where it is, without names and values: "tap MTU", "learning", "FDB entry
	// sticky". There are about a hundred, so that they can be counted one by one. "" for
	// what Diff does not look at.
	Field string
}

// Differences are as text one after another, and in JSON a list of texts.
type Differences []Difference

// Texts are those for people.
func (d Differences) Texts() (texts []string) {
	for _, one := range d {
		texts = append(texts, one.Text)
	}
	return texts
}

func (d Differences) String() string { return strings.Join(d.Texts(), "; ") }

// MarshalJSON leaves the fields out.
func (d Differences) MarshalJSON() ([]byte, error) { return json.Marshal(d.Texts()) }

// Add is for what Diff does not look at.
func (d *Drift) Add(text string) { d.Differences = append(d.Differences, Difference{Text: text}) }

// part is what can differ, as Text and as Field have it.
type part struct{ text, field string }

// the is the only part of that name.
func the(name string) part { return part{name, name} }

func (p part) its(name string) part { return part{p.text + ": " + name, p.field + " " + name} }

func (d *Drift) add(what part, format string, args ...any) {
	d.Differences = append(d.Differences, Difference{what.text + " " + fmt.Sprintf(format, args...), what.field})
}
