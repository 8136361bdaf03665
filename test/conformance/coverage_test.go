package conformance

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// statements is how many there are in all.
const statements = 84

// numbered is the name of a test of one statement.
var numbered = regexp.MustCompile(`^Test([0-9]{2})[A-Z]`)

func TestEveryStatementHasATest(t *testing.T) {
	t.Parallel()
	tests := map[int][]string{}
	for _, name := range testFunctions(t) {
		if m := numbered.FindStringSubmatch(name); m != nil {
			number, _ := strconv.Atoi(m[1])
			tests[number] = append(tests[number], name)
		}
	}
	for number := 1; number <= statements; number++ {
		if len(tests[number]) == 0 {
			t.Errorf("statement %d has no test", number)
		}
		delete(tests, number)
	}
	for number, names := range tests {
		t.Errorf("there is no statement %d: %q", number, names)
	}
}

// testFunctions are those of this package, from its source: what runs depends
// on the command line.
func testFunctions(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("source: %q, %v", files, err)
	}
	for _, path := range files {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, source, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}
