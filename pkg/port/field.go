package port

import (
	"regexp"
	"strings"
)

var (
	// particular is what a difference says of one port alone.
	particular = regexp.MustCompile(` "(?:[^"\\]|\\.)*"| (?:[0-9a-f]{2}:){5}[0-9a-f]{2}| in VLAN \d+|:`)
	// verb begins what a difference says of its field.
	verb = regexp.MustCompile(` (?:is|are) `)
)

// Field is where a difference that Diff lists is, without names and values: "tap
// MTU", "learning", "FDB entry sticky". There are about a hundred, so that they can
// be counted one by one.
func Field(difference string) string {
	what := particular.ReplaceAllString(difference, "")
	if end := verb.FindStringIndex(what); end != nil {
		what = what[:end[0]]
	}
	return strings.TrimSpace(what)
}
