package config

import (
	"fmt"
	"maps"
	"slices"
)

// dnsKeys are those of the CNI specification.
var dnsKeys = []string{"nameservers", "domain", "search", "options"}

// readDNS refuses keys that would be left out of the result without a word.
func (c *Config) readDNS() error {
	var o object
	if err := c.object.read("dns", &o); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(o)) {
		if !slices.Contains(dnsKeys, key) {
			return fmt.Errorf("%w: key %q has value %s: tapbridge does not know %q, %s", ErrUnsupported, "dns", brief(c.object["dns"]), key,
				suggestion(key, dnsKeys, fmt.Sprintf("want %q", dnsKeys)))
		}
	}
	return c.object.read("dns", &c.DNS)
}
