package pages

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	got, err := parse("a.md", "text\n```sh run\nls\n\nls\n```\n```\nfile\n```\n")
	want := []Block{{"a.md", 3, "sh", "run", "ls\n\nls\n"}, {"a.md", 8, "", "", "file\n"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := parse("a.md", "```\nls\n"); err == nil {
		t.Error("a block without an end is one")
	}
}
