package config

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

// Bandwidth limits what the guest receives and what it sends.
type Bandwidth struct{ ToGuest, FromGuest shape.Limit }

// limits are those of a Bandwidth as they were written, and under which key.
type limits struct {
	name string
	bits map[string]uint64
}

// Limits, in bytes and bytes per second. That of the burst is the kernel's
// (TCA_TBF_BURST) and the reference plugin's; that of the rate keeps records
// short.
const (
	largestBurst = math.MaxUint32
	largestRate  = 1e12 / 8
	frameHeader  = 18 // Ethernet with one VLAN tag
)

// bandwidthKeys are those of the reference plugin, in bits per second and bits.
var bandwidthKeys = []string{"ingressRate", "ingressBurst", "egressRate", "egressBurst"}

// readBandwidth reads the limits. Those of the configuration stand, as in the
// reference plugin: what a tenant writes on a pod comes as a capability, and does
// not lift what an administrator has set.
func (c *Config) readBandwidth() error {
	if err := c.readLimits("runtimeConfig.bandwidth", c.runtime); err != nil {
		return err
	}
	return c.readLimits("bandwidth", c.object)
}

// readLimits reads those that stand in o, in place of earlier ones; name is the key in
// full.
func (c *Config) readLimits(name string, o object) error {
	text := o["bandwidth"]
	if !o.given("bandwidth") {
		return nil
	}
	bits, err := readBits(name, text)
	if err != nil {
		return err
	}
	var b Bandwidth
	if b.ToGuest, err = limit(bits, "ingressRate", "ingressBurst"); err == nil {
		b.FromGuest, err = limit(bits, "egressRate", "egressBurst")
	}
	if err != nil {
		return invalid(name, text, err.Error())
	}
	c.Bandwidth, c.limits = b, limits{name, bits}
	return nil
}

// readBits takes the keys with a small or a capital first letter: containerd writes
// the one, CRI-O the other.
func readBits(name string, text json.RawMessage) (map[string]uint64, error) {
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, invalid(name, text, reason(err))
	}
	bits := map[string]uint64{}
	for spelling, value := range o {
		key := strings.ToLower(spelling[:min(1, len(spelling))]) + spelling[min(1, len(spelling)):]
		if !slices.Contains(bandwidthKeys, key) {
			return nil, fmt.Errorf("%w: key %q has value %s: tapbridge does not know %q, %s", ErrUnsupported, name, brief(text), spelling,
				suggestion(key, bandwidthKeys, fmt.Sprintf("want %q", bandwidthKeys)))
		}
		if _, twice := bits[key]; twice {
			return nil, invalid(name, text, fmt.Sprintf("%q stands twice", key))
		}
		var n uint64
		if err := json.Unmarshal(value, &n); err != nil {
			return nil, invalid(name, text, fmt.Sprintf("%q: want a whole number of bits, not negative, below 2^64", spelling))
		}
		bits[key] = n
	}
	return bits, nil
}

// limit is that of one direction; neither key, or zeros, for none.
func limit(bits map[string]uint64, rate, burst string) (shape.Limit, error) {
	l := shape.Limit{Rate: bits[rate] / 8, Burst: bits[burst] / 8}
	switch {
	case bits[rate] == 0 && bits[burst] == 0:
		return shape.Limit{}, nil
	case bits[rate] == 0:
		return l, fmt.Errorf("%q needs %q", burst, rate)
	case bits[burst] == 0:
		return l, fmt.Errorf("%q needs %q", rate, burst)
	case l.Rate == 0 || l.Rate > largestRate:
		return l, fmt.Errorf("%q: want 8 to %d bit/s", rate, uint64(largestRate)*8)
	case l.Burst > largestBurst:
		return l, fmt.Errorf("%q: want at most %d bits, 4 GiB", burst, uint64(largestBurst)*8)
	}
	return l, nil
}

// checkBursts refuses one that lets no frame through: the kernel drops what is
// larger (net/sched/sch_tbf.c, tbf_enqueue).
func (c *Config) checkBursts(a port.Attachment) error {
	frame := uint64(a.PortMTU + frameHeader)
	for _, l := range []struct {
		shape.Limit
		key string
	}{{a.ToGuest, "ingressBurst"}, {a.FromGuest, "egressBurst"}} {
		if l.Rate > 0 && l.Burst < frame {
			return invalid(c.limits.name+"."+l.key, c.limits.bits[l.key], fmt.Sprintf("that is less than a frame of bridge %q: want at least %d bits", a.Bridge, frame*8))
		}
	}
	return nil
}
