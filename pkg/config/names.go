package config

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// NameRule says in words what IsName asks for.
const NameRule = "want a letter or digit, then letters, digits, '_', '.', '-'"

// IsName reports whether text can be the name of a network or the id of a container
// (CNI specification, "Network configuration format" and "Parameters"). The library's
// function compiles a regular expression at every start of the plugin.
func IsName(text string) bool {
	const (
		alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
		others       = "_.-"
	)
	return text != "" && strings.Trim(text[:1], alphanumeric) == "" && strings.Trim(text, alphanumeric+others) == ""
}

// CheckInterfaceName refuses what the kernel refuses as the name of a device
// (net/core/dev.c, dev_valid_name), "%", which it would replace by a number, and what
// would be more than a name on a terminal.
func CheckInterfaceName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("interface name is empty")
	case len(name) >= unix.IFNAMSIZ:
		return fmt.Errorf("interface name is longer than %d bytes", unix.IFNAMSIZ-1)
	case name == "." || name == "..":
		return fmt.Errorf("interface name %q is a folder's", name)
	case IsReserved(name):
		return fmt.Errorf("interface name %q has a meaning of its own in /proc/sys/net: the kernel gives it to no device", name)
	case strings.ContainsAny(name, "/:%") || strings.ContainsFunc(name, unicode.IsSpace):
		return fmt.Errorf("interface name %q contains / : %% or white space", name)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("interface name %q cannot be printed", name) // as it is, on somebody's terminal
	}
	return nil
}

// IsReserved is for the names of directories of sysctls beside those of the devices
// (net/ipv4/devinet.c, sysctl_dev_name_is_allowed).
func IsReserved(name string) bool { return name == "all" || name == "default" }
