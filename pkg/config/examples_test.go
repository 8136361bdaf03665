package config_test

import (
	"encoding/json"
	"os"
	"testing"

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
	t.Fatalf("%s has no plugin of type tapbridge", file)
	return nil
}
