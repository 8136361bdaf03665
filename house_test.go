// Package tapbridge_test holds the source tree to the rules of
// docs/architecture.md.
package tapbridge_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tapbridge/tapbridge/"

// floors are the packages of the plugin from the bottom up. A package imports
// only from floors below its own, never a neighbour.
var floors = [][]string{
	{"pkg/mac", "internal/prefault", "internal/remedy", "internal/shell"},
	{"internal/rtnl"},
	{"internal/nft"},
	{"pkg/tap", "pkg/bridge", "pkg/fdb", "pkg/redirect", "pkg/shape", "pkg/dan", "pkg/gateway", "pkg/guard", "pkg/address", "pkg/sandbox"},
	{"pkg/port"},
	{"pkg/config", "pkg/attach"},
	{"pkg/doctor", "pkg/agent"},
	{"pkg/plugin"},
	{"cmd/tapbridge", "cmd/tapbridge-agent"},
}

// mayKnowCNI are the packages that know what CNI is.
var mayKnowCNI = []string{"pkg/config", "pkg/plugin"}

func TestImportsRunOneWay(t *testing.T) {
	floor := map[string]int{}
	for i, packages := range floors {
		for _, p := range packages {
			floor[p] = i
		}
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./cmd/...", "./pkg/...", "./internal/rtnl/...", "./internal/nft/...", "./internal/prefault/...", "./internal/remedy/...", "./internal/shell/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		importer := strings.TrimPrefix(words[0], module)
		own, known := floor[importer]
		if !known {
			t.Errorf("package %s has no floor in this test", importer)
		}
		seen++
		for _, path := range words[1:] {
			if imported, ours := strings.CutPrefix(path, module); ours && floor[imported] >= own {
				t.Errorf("%s imports %s, which is not below it", importer, imported)
			}
			if strings.HasPrefix(path, "github.com/containernetworking/cni/") && !slices.Contains(mayKnowCNI, importer) {
				t.Errorf("%s imports %s: only %q know CNI", importer, path, mayKnowCNI)
			}
		}
	}
	if seen != len(floor) {
		t.Errorf("%d packages found, this test knows %d", seen, len(floor))
	}
}

// A dump of the whole node where one object would do costs with every port that
// others add, and the library's own dumps fail when links come and go meanwhile.
// A handle of the library itself, or the one inside of netlinksafe's, makes such dumps.
var rawDump = regexp.MustCompile(`\b(netlink|\w+\.Handle)\.(Link|Addr|Route|Neigh|Qdisc|Filter|BridgeVlan)\w*List\w*\(|\bnetlink\.LinkBy|\bnetlink\.NewHandle`)

func TestNoRawDumps(t *testing.T) {
	for _, root := range []string{"cmd", "pkg", "internal/rtnl", "internal/nft"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			if found := rawDump.Find(source); found != nil {
				t.Errorf("%s calls %s: use rtnl.Conn, which is netlinksafe", path, found)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// inPlugin are the modules that the plugin is made of: it is called for each pod,
// and runs as root. What serves the agent alone is not in it.
var inPlugin = []string{
	"github.com/containernetworking/cni",
	"github.com/containernetworking/plugins",
	"github.com/pkg/errors",
	"github.com/vishvananda/netlink",
	"github.com/vishvananda/netns",
	"golang.org/x/sys",
}

func TestPluginIsLean(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "./cmd/tapbridge").Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(out)))))
	if !slices.Equal(modules, inPlugin) {
		t.Errorf("the plugin is made of %q, want %q", modules, inPlugin)
	}
}
