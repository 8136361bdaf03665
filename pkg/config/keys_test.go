package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// The README's table of options is the code's.
func TestREADMEHasEveryKey(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	table := "| key | type | default | effect |\n|---|---|---|---|\n"
	for _, k := range config.Keys {
		table += fmt.Sprintf("| `%s` | %s | %s | %s |\n", k.Name, k.Type, k.Default, k.Effect)
	}
	if !strings.Contains(string(readme), table+"\n") {
		t.Errorf("README.md does not have exactly this table:\n%s", table)
	}
}

// The defaults that the table promises are those of Parse.
func TestDefaultsAreTheTable(t *testing.T) {
	c, err := parse(`,"bridge":"br0"`, "")
	if err != nil {
		t.Fatal(err)
	}
	sticky, err := parse(`,"bridge":"br0","macTableManager":"libvirt"`, "")
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]any{
		"createBridge": c.CreateBridge, "mode": c.Mode, "macTableManager": c.Table, "fdb": sticky.Table, "multiQueue": c.MultiQueue,
		"owner": c.Owner, "group": c.Group, "macspoofchk": c.MACSpoofCheck, "ipSpoofChk": c.IPSpoofCheck, "portIsolation": c.Isolation, "hairpinMode": c.Hairpin, "vmconf": c.VMConf, "dan": c.DAN, "promote": c.Promote, "isGateway": c.Gateway.Is, "isDefaultGateway": c.Gateway.Default, "forceAddress": c.Gateway.Force, "ipMasq": c.Gateway.Masquerade,
		"preserveDefaultVlan": c.VLANs.KeepDefault,
	}
	for _, k := range config.Keys {
		if got, plain := defaults[k.Name]; plain && fmt.Sprint(got) != k.Default {
			t.Errorf("key %q defaults to %v, the table says %s", k.Name, got, k.Default)
		}
		delete(defaults, k.Name)
	}
	if len(defaults) > 0 {
		t.Errorf("the table lacks %v", defaults)
	}
}

// Every key of the table is read: a value that is of nobody's type is refused by name.
func TestEveryKeyIsRead(t *testing.T) {
	for _, k := range config.Keys {
		members := fmt.Sprintf(`,%q:[7]`, k.Name)
		if k.Name != "bridge" {
			members += `,"bridge":"br0"`
		}
		if _, err := parse(members, ""); !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("key %q", k.Name)) {
			t.Errorf("%s: %v", members, err)
		}
	}
}

// Every value that the table allows for a choice is accepted.
func TestChoicesAreTheTable(t *testing.T) {
	for _, k := range config.Keys {
		if !strings.Contains(k.Type, ", ") || strings.HasPrefix(k.Type, "int") {
			continue
		}
		for choice := range strings.SplitSeq(k.Type, ", ") {
			members := fmt.Sprintf(`,"bridge":"br0",%q:%q`, k.Name, choice)
			if k.Name == "fdb" {
				members += `,"macTableManager":"libvirt"`
			}
			if _, err := parse(members, ""); err != nil {
				t.Errorf("%s: %v", members, err)
			}
		}
	}
}

// Every example is a configuration that this plugin takes.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.conflist")
	if err != nil || len(files) < len(port.Modes) {
		t.Fatalf("%d examples: %v", len(files), err)
	}
	modes := map[port.Mode]bool{}
	for _, f := range files {
		c := readExample(t, f)
		modes[c.Mode] = true
	}
	for _, m := range port.Modes {
		if !modes[m] {
			t.Errorf("no example has mode %s", m)
		}
	}
}
