// Package doctor looks at a node and says what tapbridge can do on it, what it
// cannot, and how to change that. It changes nothing: what must be tried is tried
// in network namespaces of its own. How a port is compared with its record is the
// business of package attach.
package doctor

// Level is how much a finding matters.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Note Level = "note" // good to know: a choice, or something that not everybody needs
	Bad  Level = "bad"  // guests cannot be attached, or are cut off
)

// Finding is one check and what came of it.
type Finding struct {
	Level  Level  `json:"level"`
	Object string `json:"object"` // what was looked at: "node", `bridge "br0"` …
	Says   string `json:"says"`
	Remedy string `json:"remedy,omitempty"` // a command, or what to do; none when all is well

	// Limited says that ports can still be attached, but will have no connectivity.
	Limited bool `json:"-"`
}

func ok(object, says string) Finding { return Finding{Level: OK, Object: object, Says: says} }

func note(object, says, remedy string) Finding {
	return Finding{Level: Note, Object: object, Says: says, Remedy: remedy}
}

func bad(object, says, remedy string) Finding {
	return Finding{Level: Bad, Object: object, Says: says, Remedy: remedy}
}
