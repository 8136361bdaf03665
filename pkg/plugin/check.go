package plugin

import (
	"errors"
	"fmt"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// check compares the port that this configuration and the earlier result ask for
// with the one that is there.
func (r *request) check() error {
	c, err := r.config.Parse("") // CNI_ARGS come with ADD only
	if err != nil {
		return err
	}
	given, err := r.inPrevResult(c)
	if err != nil {
		return err
	}
	site, err := r.openPod()
	if err != nil {
		return err
	}
	defer site.Close()
	if err := hostAccess(site, c); err != nil {
		return err
	}
	look := func() error {
		want, err := r.wanted(site, c, given)
		if err != nil {
			return err
		}
		got, err := site.Observe(want)
		if err != nil {
			return err
		}
		return port.Diff(want, got)
	}
	return errors.Join(site.Calmly(c.Bridge, look), r.ipamCheck(site, c), r.served(site, c))
}

// guestNIC is what an earlier result says about our interface.
type guestNIC struct {
	mac mac.Addr
	mtu int // 0 before CNI 1.1.0
}

func (r *request) inPrevResult(c *config.Config) (guestNIC, error) {
	if c.PrevResult == nil {
		return guestNIC{}, fmt.Errorf(`%w: CHECK needs "prevResult"`, config.ErrInvalid)
	}
	for _, i := range c.PrevResult.Interfaces {
		if i.Name != r.ifName || i.Sandbox != r.netNS {
			continue
		}
		m, err := mac.Parse(i.Mac)
		if err != nil {
			return guestNIC{}, fmt.Errorf("%w: prevResult has interface %q: %w", config.ErrInvalid, i.Name, err)
		}
		return guestNIC{m, i.Mtu}, nil
	}
	return guestNIC{}, fmt.Errorf("%w: prevResult has no interface %q in sandbox %q", config.ErrInvalid, r.ifName, r.netNS)
}

// wanted is the port that ADD made, had it been asked today. Two things are not
// for the configuration to say: a bridge whose MTU has been raised since does
// not make its ports wrong, and a later plugin of the chain may have lowered the
// pod interface's.
func (r *request) wanted(site *attach.Site, c *config.Config, given guestNIC) (port.Port, error) {
	br, err := bridge.Find(site.Host(), c.Bridge)
	if errors.Is(err, bridge.ErrNotFound) {
		br, err = c.NewBridge(false), nil // that the port is on none will be seen
	}
	if err != nil {
		return port.Port{}, err
	}
	then, made, err := site.Recorded(r.id())
	if err != nil {
		return port.Port{}, err
	}
	if made {
		br.MTU = then.PortMTU
		br.VLANAware = br.VLANAware || then.VLANs != "" // that it is no more will be seen
	}
	c.MAC = given.mac
	a, err := c.Plan(r.id(), br)
	if err != nil {
		return port.Port{}, err
	}
	if made && !c.VLANs.Given() { // the bridge may have become VLAN-aware
		a.VLANs = then.VLANs
	}
	want, err := site.Want(a)
	if err != nil {
		return port.Port{}, err
	}
	if want.DAN != nil {
		want.DAN.Addresses, want.DAN.Routes = r.guestNetwork(c, c.PrevResult)
	}
	if want.Guard != nil {
		if want.Guard.Addresses, err = guarded(a.Guest, r.ownIPs(c, c.PrevResult)); err != nil {
			return port.Port{}, err
		}
	}
	if want.Pod != nil && given.mtu != 0 {
		want.Pod.MTU = given.mtu
	}
	return want, nil
}
