package config_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/pages"
	"github.com/tapbridge/tapbridge/pkg/config"
)

// readExample parses the tapbridge plugin of a conflist as a runtime hands it
// over: with the list's name and version put in.
func readExample(t *testing.T, file string) *config.Config {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return parseList(t, file, data)
}

func parseList(t *testing.T, file string, data []byte) *config.Config {
	t.Helper()
	var list struct {
		CNIVersion, Name string
		Plugins          []map[string]any
	}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for _, p := range list.Plugins {
		if p["type"] != "tapbridge" {
			continue
		}
		p["name"], p["cniVersion"] = list.Name, list.CNIVersion
		stdin, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return parsePlugin(t, file, stdin)
	}
	t.Fatalf("%s has no plugin of type tapbridge", file)
	return nil
}

func parsePlugin(t *testing.T, file string, stdin []byte) *config.Config {
	t.Helper()
	h, err := config.ParseHeader(stdin)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	c, err := h.Parse("")
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return c
}

// Every configuration in the manual is one. Where the page names the file of examples/ with it, they are the same.
func TestManualHasConfigurations(t *testing.T) {
	blocks, err := pages.Blocks("../..")
	if err != nil {
		t.Fatal(err)
	}
	files := exampleFiles(t)
	lists, plugins := 0, 0
	for _, b := range blocks {
		text, found := jsonIn(b)
		if !found {
			continue
		}
		var what struct {
			Name, Type string
			Plugins    []any
		}
		if err := json.Unmarshal([]byte(text), &what); err != nil {
			t.Errorf("%s: %v", b, err)
		}
		switch {
		case what.Plugins != nil:
			lists++
			parseList(t, b.String(), []byte(text))
			if example, there := files[what.Name]; !there || example != text {
				t.Errorf("%s: network %q is not that of examples/", b, what.Name)
			}
		case what.Type != "":
			plugins++
			parsePlugin(t, b.String(), []byte(text))
		}
	}
	if lists < 4 || plugins == 0 {
		t.Errorf("%d lists and %d plugins found", lists, plugins)
	}
}

// jsonIn is a block of JSON, or a file that a command writes from its own lines.
func jsonIn(b pages.Block) (string, bool) {
	if b.Language == "json" {
		return b.Text, true
	}
	_, text, found := strings.Cut(b.Text, ".json <<'END'\n")
	text, _, ends := strings.Cut(text, "\nEND\n")
	return text, found && ends
}

// exampleFiles are the texts of examples/ by the names of their networks.
func exampleFiles(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../examples/*.conflist")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		var list struct{ Name string }
		if err == nil {
			err = json.Unmarshal(text, &list)
		}
		if err != nil {
			t.Fatal(err)
		}
		texts[list.Name] = string(text)
	}
	return texts
}
