// Command tapbridge is a CNI plugin that gives a virtual machine in a pod a port
// on a Linux bridge of the node. A runtime calls it with CNI_COMMAND set; a
// person calls it with the name of a command.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	_ "github.com/tapbridge/tapbridge/internal/prefault"
	"github.com/tapbridge/tapbridge/pkg/plugin"
)

// version is set when the binary is linked.
var version = "unknown"

func main() {
	os.Exit(run(os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// withArguments are the commands that take any.
var withArguments = []string{"ports", "doctor", "install"}

func run(args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 && plugin.Called(getenv) {
		return plugin.Run(getenv, stdin, stdout, stderr)
	}
	command := "help"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	if len(args) > 0 && !slices.Contains(withArguments, command) {
		if isHelp(args) {
			return run([]string{"help"}, getenv, stdin, stdout, stderr)
		}
		fmt.Fprintf(stderr, "tapbridge: %s takes no %q; try: tapbridge help\n", command, args)
		return 2
	}
	switch command {
	case "ports":
		return ports(args, stdout, stderr)
	case "doctor":
		return examine(args, stdout, stderr)
	case "install":
		return install(args, stdout, stderr)
	case "options":
		return options(stdout)
	case "version", "--version":
		fmt.Fprintf(stdout, "tapbridge %s, CNI %s\n", version, strings.Join(plugin.Versions, " "))
		return 0
	case "help", "-h", "--help":
		fmt.Fprintf(stdout, help, version)
		return 0
	}
	fmt.Fprintf(stderr, "tapbridge: unknown command %q; try: tapbridge help\n", command)
	return 2
}

func isHelp(args []string) bool { return len(args) == 1 && (args[0] == "-h" || args[0] == "--help") }

const help = `tapbridge %s gives a virtual machine in a pod a port on a Linux bridge.

It is a CNI plugin: a container runtime or Multus calls it with CNI_COMMAND set
and a configuration on stdin. A person can call:

  tapbridge ports [-o json]   the ports in this network namespace, whose they are, what is wrong with them
  tapbridge doctor [BRIDGE]   what this node can do, what it cannot, and why (-o json; exit code 1: something is bad)
  tapbridge install DIR       copy this program to DIR/tapbridge, in one step; -stay: then wait for SIGTERM
  tapbridge options           the keys of the configuration, with their defaults
  tapbridge version           the version, and the CNI versions it speaks
  tapbridge help              this text
`
