package config

import (
	"strings"
	"testing"
)

func TestIsName(t *testing.T) {
	for text, want := range map[string]bool{
		"a": true, "Z9": true, "0._-": true, "vms.prod_1-x": true, strings.Repeat("n", 300): true,
		"": false, "_a": false, ".": false, "-a": false, "a b": false, "a/b": false, "a\n": false, "\na": false, "ä": false, "aäb": false, "a\x00": false,
	} {
		if got := IsName(text); got != want {
			t.Errorf("IsName(%q) is %v", text, got)
		}
	}
}

func TestCheckInterfaceName(t *testing.T) {
	for name, right := range map[string]bool{
		"e": true, "net1": true, "a.b-c_d": true, "123456789012345": true, "...": true, "ähm": true, `a"b`: true,
		"": false, "1234567890123456": false, ".": false, "..": false, "a/b": false, "a:b": false, "a b": false, "a\tb": false, "a\u00a0b": false,
		"a%d": false, "a\xff": false, "a\x1b": false, "a\u202eb": false,
	} {
		if err := CheckInterfaceName(name); (err == nil) != right {
			t.Errorf("CheckInterfaceName(%q): %v", name, err)
		}
	}
}
