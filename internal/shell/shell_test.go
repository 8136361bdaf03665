package shell_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/shell"
)

func TestWord(t *testing.T) {
	for text, want := range map[string]string{
		"br0":            "br0",
		"eth0.42@x":      "eth0.42@x",
		"$(id)":          "'$(id)'",
		"`id`":           "'`id`'",
		"a;b":            "'a;b'",
		"a'b":            `'a'\''b'`,
		"''":             `''\'''\'''`,
		"~":              "'~'",
		"a=b":            "'a=b'",
		"#a":             "'#a'",
		"*":              "'*'",
		`a\`:             `'a\'`,
		"":               "''",
		"é":              "'é'",
		`{"name":"vms"}`: `'{"name":"vms"}'`,
	} {
		if got := shell.Word(text); got != want {
			t.Errorf("%q becomes %s, want %s", text, got, want)
		}
	}
}

// A shell makes the same text of it again, and does nothing else with it.
func TestWordIsReadBack(t *testing.T) {
	var texts, words []string
	for b := byte(' '); b < 0x7f; b++ {
		texts = append(texts, string(b), "a"+string(b)+string(b)+"b")
	}
	texts = append(texts, "$(id)", "${PATH}", "a'\"b", "!!", "-n", "")
	for _, text := range texts {
		words = append(words, shell.Word(text))
	}
	out, err := exec.Command("sh", "-c", "printf '%s\\n' "+strings.Join(words, " ")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(out), strings.Join(texts, "\n")+"\n"; got != want {
		t.Errorf("the shell reads\n%s, want\n%s", got, want)
	}
}
