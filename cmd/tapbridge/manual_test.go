package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/pages"
)

const root = "../.."

var called = regexp.MustCompile(`(?m)(?:^|[\s/])tapbridge ([a-z]+)`)

// Whatever command the manual tells people to call, there is one.
func TestManualCallsWhatThereIs(t *testing.T) {
	blocks, err := pages.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, b := range blocks {
		if b.Language != "sh" {
			continue
		}
		for _, m := range called.FindAllStringSubmatch(b.Text, -1) {
			if seen[m[1]] = true; !strings.Contains(help, "\n  tapbridge "+m[1]+" ") {
				t.Errorf("%s calls %q", b, m[0])
			}
		}
	}
	if !seen["ports"] || !seen["doctor"] || !seen["install"] {
		t.Errorf("the manual calls no more than %v", seen)
	}
}

var (
	// between the parts of a sentence stand values, or the path of an error has its joints.
	between     = regexp.MustCompile(`…|: `)
	verbs       = strings.NewReplacer(" is ", "…is ", " are ", "…are ") // a difference is a name, and what is said of it
	firstColumn = regexp.MustCompile(`(?m)^\|([^|]*)\|`)
	inCode      = regexp.MustCompile("`([^`]*)`")
)

// The sentences that docs/troubleshooting.md explains are those of the code, between the names and values.
func TestTroubleshootingQuotesTheCode(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	code := literals(t)
	sentences := 0
	for _, row := range firstColumn.FindAllStringSubmatch(string(text), -1) {
		for _, span := range inCode.FindAllStringSubmatch(row[1], -1) {
			if strings.Count(span[1], " ") < 2 || strings.HasPrefix(span[1], "bridge vlan") || strings.HasPrefix(span[1], "tcpdump") {
				continue // a name, or a command
			}
			sentences++
			for _, part := range between.Split(verbs.Replace(span[1]), -1) {
				if !strings.Contains(code, strings.TrimSpace(part)) {
					t.Errorf("no error says %q of %q", part, span[1])
				}
			}
		}
	}
	if sentences < 20 {
		t.Errorf("%d sentences found", sentences)
	}
}

// literals are all strings of the program, one a line.
func literals(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"cmd", "pkg", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					value, _ := strconv.Unquote(l.Value) // it has been parsed
					fmt.Fprintln(&all, value)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}
