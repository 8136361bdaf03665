package plugin

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tapbridge/tapbridge/pkg/config"
)

// The environment variables of a CNI call.
const (
	command     = "CNI_COMMAND"
	containerID = "CNI_CONTAINERID"
	netNS       = "CNI_NETNS"
	ifName      = "CNI_IFNAME"
	args        = "CNI_ARGS"
	path        = "CNI_PATH"
	override    = "CNI_NETNS_OVERRIDE"
)

// environment is what a call says by environment variables.
type environment struct {
	command, containerID, netNS, ifName, args, path string

	ownNetNSAllowed bool
}

func readEnvironment(getenv func(string) string) environment {
	o := getenv(override)
	return environment{
		command:         getenv(command),
		containerID:     getenv(containerID),
		netNS:           getenv(netNS),
		ifName:          getenv(ifName),
		args:            getenv(args),
		path:            getenv(path),
		ownNetNSAllowed: o == "1" || strings.EqualFold(o, "true"),
	}
}

// Called reports whether the environment is that of a CNI call, be it a
// defective one. CNI_PATH alone is what people have in their shells.
func Called(getenv func(string) string) bool {
	e := readEnvironment(getenv)
	return e.command != "" || e.containerID != "" || e.netNS != "" || e.ifName != ""
}

// check names everything that is missing or wrong at once.
func (e environment) check(known bool, needs []string) error {
	switch {
	case e.command == "":
		return fmt.Errorf("%w: %s is missing", errEnvironment, command)
	case !known:
		return fmt.Errorf("%w: %s has value %q, want ADD, DEL, CHECK, GC, STATUS or VERSION", errEnvironment, command, e.command)
	}
	values := map[string]string{containerID: e.containerID, netNS: e.netNS, ifName: e.ifName, path: e.path}
	missing := slices.DeleteFunc(slices.Clone(needs), func(name string) bool { return values[name] != "" })
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s needs %s", errEnvironment, e.command, strings.Join(missing, ", "))
	}
	if slices.Contains(needs, containerID) {
		return e.checkNames()
	}
	return nil
}

func (e environment) checkNames() error {
	if !config.IsName(e.containerID) {
		return fmt.Errorf("%w: %s has value %q: %s", errEnvironment, containerID, e.containerID, config.NameRule)
	}
	if e.command == "DEL" && config.IsReserved(e.ifName) {
		return nil // libcni lets it through to ADD, and has to get rid of what that has refused
	}
	if err := config.CheckInterfaceName(e.ifName); err != nil {
		return fmt.Errorf("%w: %s has value %q: %s", errEnvironment, ifName, e.ifName, err)
	}
	return nil
}
