package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ownKeys are those that tapbridge acts upon; the README has a table of them.
var ownKeys = []string{
	"bridge", "createBridge", "mode", "macTableManager", "fdb", "mac", "mtu", "multiQueue", "owner", "group",
	"macspoofchk", "portIsolation", "hairpinMode", "ipam", "dns",
}

// laterKeys are known, but not supported yet. "Off" is what happens anyway, so
// false passes.
var laterKeys = []string{
	"vlan", "vlanTrunk", "preserveDefaultVlan", "bandwidth", "vmconf", "dan", "selinuxContext",
	"isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "ipSpoofChk", "promote",
}

// foreignKeys are put there by the specification, by runtimes and by Multus, for
// themselves or for the plugins of a chain.
var foreignKeys = []string{
	"cniVersion", "name", "type", "capabilities", "runtimeConfig", "args", "prevResult",
	"disableCheck", "disableGC", "deviceID", "pciBusID", "resourceName",
}

// foreignPrefix is reserved by the CNI specification for runtimes.
const foreignPrefix = "cni.dev/"

// checkKeys refuses keys that nobody would act upon: a mistyped macTableManager
// must not leave a guest unprotected.
func (o object) checkKeys() error {
	for _, key := range slices.Sorted(maps.Keys(o)) {
		value := o[key]
		switch {
		case slices.Contains(ownKeys, key), slices.Contains(foreignKeys, key), strings.HasPrefix(key, foreignPrefix):
		case slices.Contains(laterKeys, key):
			if s := string(value); s != "false" && s != "null" {
				return fmt.Errorf("%w: key %q has value %s: not supported yet", ErrUnsupported, key, brief(value))
			}
		default:
			return fmt.Errorf("%w: key %q has value %s: tapbridge does not know it%s", ErrUnsupported, key, brief(value), suggestion(key))
		}
	}
	return nil
}

// suggestion finds the key that was meant when only the case is wrong.
func suggestion(key string) string {
	for _, k := range ownKeys {
		if strings.EqualFold(k, key) {
			return fmt.Sprintf(", did you mean %q?", k)
		}
	}
	return ""
}
