package plugin

import (
	"errors"
	"fmt"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/doctor"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// add makes the attachment and prints the result. What was made does not outlive
// an error.
func (r *request) add() error {
	c, err := r.config.Parse(r.args)
	if err != nil {
		return err
	}
	site, err := r.openPod()
	if err != nil {
		return err
	}
	defer site.Close()
	if err := r.mayFollow(c); err != nil {
		return err
	}
	if err := hostAccess(site, c); err != nil {
		return err
	}
	a, err := r.attach(site, c)
	if err != nil {
		return err
	}
	if err := attach.Recover(func() error { return r.complete(site, c, a) }); err != nil {
		return errors.Join(err, site.Undo(a))
	}
	return nil
}

// attach plans the attachment and makes it: once more where the bridge has been
// changed in between, by an ADD that has made it or takes it back, for one.
func (r *request) attach(site *attach.Site, c *config.Config) (a port.Attachment, err error) {
	const attempts = 3
	for range attempts {
		var br bridge.Bridge
		if a, br, err = planned(site, c, r.id()); err != nil {
			return a, err
		}
		if err = site.Apply(a, br); !errors.Is(err, attach.ErrStale) {
			return a, err
		}
	}
	return a, err
}

// complete adds to a standing port what is not the port's: addresses, and the
// answer to the caller.
func (r *request) complete(site *attach.Site, c *config.Config, a port.Attachment) error {
	result, err := r.result(site, c, a)
	if err != nil {
		return err
	}
	if c.IPAM != "" {
		if err := r.ipamAdd(site, c, a, result); err != nil {
			return err
		}
	}
	answer := func() error {
		if err := r.describe(c, a, result); err != nil {
			return err
		}
		return r.printResult(c, result)
	}
	if err := attach.Recover(func() error { return r.serve(site, c, a, result, answer) }); err != nil {
		return errors.Join(err, r.ipamDel())
	}
	return nil
}

// del removes the attachment. It reads next to nothing of the configuration: by
// now that may be another one, or reduced to name and type.
func (r *request) del() error {
	site, err := r.openForRemoval()
	if err != nil {
		return err
	}
	defer site.Close()
	err = site.Remove(r.id())
	ipamErr := r.ipamDel()
	if r.config.Reduced() && ipamErr != nil {
		// The delegate's own keys are gone as well (Multus reduces the
		// configuration of a cluster network so): no retry can succeed.
		fmt.Fprintf(r.stderr, "tapbridge: DEL with a reduced configuration: addresses are left to the delegate's GC: %v\n", ipamErr)
		ipamErr = nil
	}
	return errors.Join(err, ipamErr)
}

// gc removes the network's attachments that the runtime does not list.
func (r *request) gc() error {
	if err := r.config.CheckName(); err != nil {
		return err
	}
	valid, known, err := r.config.Attachments()
	if err != nil {
		return err
	}
	if known {
		err = removeOthers(r.config.Name, valid)
	}
	return errors.Join(err, r.ipamGC())
}

func removeOthers(network string, valid []port.ID) error {
	site, err := attach.Open()
	if err != nil {
		return err
	}
	defer site.Close()
	return site.RemoveOthers(network, valid)
}

// status says whether an ADD could work, and changes nothing.
func (r *request) status() error {
	if r.config.Reduced() { // an error would keep a healthy node from ever being ready
		fmt.Fprintln(r.stderr, "tapbridge: STATUS with a reduced configuration: it names no bridge to look at")
		return r.config.CheckName()
	}
	c, err := r.config.Parse("")
	if err != nil {
		return err
	}
	site, err := attach.Open()
	if err != nil {
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
	defer site.Close()
	if err := attach.Possible(); err != nil {
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
	if c.Mode != port.Veth {
		if err := wrong(doctor.Tun()); err != nil {
			return err
		}
	}
	_, br, err := planned(site, c, port.ID{})
	if err == nil && c.IPSpoofCheck {
		err = guard.Possible(site.Host())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
	if br.Index != 0 {
		if err := wrong(doctor.Joinable(br.Name, br, nil)); err != nil {
			return err
		}
	}
	if err := r.mayFollow(c); err != nil {
		return err
	}
	return r.ipamStatus()
}

// planned goes as far as an ADD can without touching anything.
func planned(site *attach.Site, c *config.Config, id port.ID) (a port.Attachment, br bridge.Bridge, err error) {
	if br, err = findBridge(site, c); err != nil {
		return a, br, err
	}
	if err := tap.CheckLabel(c.Label); err != nil {
		return a, br, err
	}
	if err := mayServe(site, c, br); err != nil {
		return a, br, err
	}
	a, err = c.Plan(id, br)
	return a, br, err
}

// wrong is what STATUS says of a finding, if that is bad.
func wrong(f doctor.Finding) error {
	if f.Level != doctor.Bad {
		return nil
	}
	kind := errUnavailable
	if f.Limited {
		kind = errLimited
	}
	return fmt.Errorf("%w: %s: %s: %s", kind, f.Object, f.Says, f.Remedy)
}

// openPod opens both sides; the pod's namespace must be there. The plugin's own is
// refused as the pod's, before anything is made in it.
func (r *request) openPod() (*attach.Site, error) {
	site, err := attach.OpenPod(r.netNS)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errEnvironment, netNS, err)
	}
	same, err := site.OneSided()
	if err == nil && same && !r.ownNetNSAllowed {
		err = fmt.Errorf("%w: %s has value %q; if that is meant, set %s=1", errOwnNetNS, netNS, r.netNS, override)
	}
	if err != nil {
		site.Close()
		return nil, err
	}
	return site, nil
}

func (r *request) openForRemoval() (*attach.Site, error) {
	if r.netNS == "" {
		return attach.Open()
	}
	return attach.OpenForRemoval(r.netNS)
}

// findBridge reads the bridge, or plans the one that will be made.
func findBridge(site *attach.Site, c *config.Config) (bridge.Bridge, error) {
	br, err := site.Bridge(c.Bridge)
	switch {
	case errors.Is(err, bridge.ErrNotFound) && !c.CreateBridge:
		return br, fmt.Errorf(`%w: create it, or set "createBridge": true`, err)
	case errors.Is(err, bridge.ErrNotFound):
		can, err := canFilterVLANs(site, c)
		return c.NewBridge(can), err
	case err == nil && c.VLANs.Given() && !br.VLANAware:
		_, err = canFilterVLANs(site, c) // else Plan says how the bridge becomes so
	}
	return br, err
}

// canFilterVLANs is an error where the kernel cannot and the configuration asks for it.
func canFilterVLANs(site *attach.Site, c *config.Config) (bool, error) {
	can, err := bridge.CanFilterVLANs(site.Host())
	if err == nil && !can && c.VLANs.Given() {
		err = fmt.Errorf("bridge %q: %w", c.Bridge, bridge.ErrNoVLANs)
	}
	return can, err
}
