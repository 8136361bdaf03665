package port

import (
	"regexp"
	"strings"
	"sync"
)

// particular is what a difference says of one port alone. It is compiled when it is
// first needed, which in the plugin it never is.
var particular = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(` "(?:[^"\\]|\\.)*"| (?:[0-9a-f]{2}:){5}[0-9a-f]{2}| in VLAN \d+|:`)
})

// Field is where a difference that Diff lists is, without names and values: "tap
// MTU", "learning", "FDB entry sticky". There are about a hundred, so that they can
// be counted one by one.
func Field(difference string) string {
	what := particular().ReplaceAllString(difference, "")
	for _, verb := range []string{" is ", " are "} {
		what, _, _ = strings.Cut(what, verb)
	}
	return strings.TrimSpace(what)
}
