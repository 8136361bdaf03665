package port

import (
	"net"
	"strconv"
	"strings"
)

// Field is where a difference that Diff lists is, without names and values: "tap
// MTU", "learning", "FDB entry sticky". There are about a hundred, so that they can
// be counted one by one.
func Field(difference string) string {
	var field []string
	for rest := difference; rest != ""; {
		var word string
		word, rest = nextWord(rest)
		switch _, isMAC := net.ParseMAC(word); {
		case word == "is" || word == "are": // what follows is the value
			return strings.Join(field, " ")
		case word == "in" && strings.HasPrefix(rest, "VLAN "):
			_, rest = nextWord(rest)
			_, rest = nextWord(rest)
		case word != "" && word[0] != '"' && isMAC != nil:
			field = append(field, word)
		}
	}
	return strings.Join(field, " ")
}

// nextWord takes a quoted name whole.
func nextWord(text string) (word, rest string) {
	word, rest, _ = strings.Cut(text, " ")
	if quoted, err := strconv.QuotedPrefix(text); err == nil {
		word, rest = quoted, strings.TrimLeft(text[len(quoted):], ": ")
	}
	return strings.TrimSuffix(word, ":"), rest
}
