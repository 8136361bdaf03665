package config

import (
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tapbridge/tapbridge/pkg/mac"
)

// readMAC finds the guest's MAC address. Of several sources the last wins, in
// the order of the CNI conventions: a capability is the runtime's word, and
// beats what a user wrote. A malformed one is refused even where it loses.
func (c *Config) readMAC(args string) error {
	if err := c.object.read("mac", &c.MAC); err != nil {
		return err
	}
	if err := c.readArgsMAC(args); err != nil {
		return err
	}
	if err := c.readConventionMAC(); err != nil {
		return err
	}
	return c.readRuntimeMAC()
}

// arguments are the keys of CNI_ARGS that we know; LoadArgs finds them by name.
type arguments struct {
	types.CommonArgs
	MAC types.UnmarshallableString
}

func (c *Config) readArgsMAC(args string) error {
	var known arguments
	if err := types.LoadArgs(args, &known); err != nil {
		return fmt.Errorf("%w: %q: %w", ErrArgs, args, err)
	}
	if known.MAC == "" {
		return nil
	}
	m, err := mac.Parse(string(known.MAC))
	if err != nil {
		return fmt.Errorf("%w: CNI_ARGS has MAC=%s: %w", ErrInvalid, known.MAC, err)
	}
	c.MAC = m
	return nil
}

// readConventionMAC reads args.cni.mac. Whatever else stands there is somebody
// else's.
func (c *Config) readConventionMAC() error {
	var args, cni object
	if err := c.object.read("args", &args); err != nil || !args.given("cni") {
		return err
	}
	if err := json.Unmarshal(args["cni"], &cni); err != nil {
		return invalid("args.cni", args["cni"], reason(err))
	}
	if !cni.given("mac") {
		return nil
	}
	if err := json.Unmarshal(cni["mac"], &c.MAC); err != nil {
		return invalid("args.cni.mac", cni["mac"], reason(err))
	}
	return nil
}

// readRuntimeMAC reads what the runtime sends for the capability.
func (c *Config) readRuntimeMAC() error {
	if !c.runtime.given("mac") {
		return nil
	}
	if err := json.Unmarshal(c.runtime["mac"], &c.MAC); err != nil {
		return invalid("runtimeConfig.mac", c.runtime["mac"], reason(err))
	}
	return nil
}
