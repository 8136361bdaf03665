package plugin

import (
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// mayServe refuses what serve could not do, before anything is touched.
func mayServe(site *attach.Site, c *config.Config, br bridge.Bridge) error {
	if !c.Gateway.Given() {
		return nil
	}
	if err := c.Gateway.CheckBridge(br); err != nil {
		return err
	}
	return site.MayServe(br, c.Gateway.Is, c.Gateway.Masquerade)
}

// serve answers behind what the configuration asks of the bridge's side: a result
// that nobody hears is undone like any other step.
func (r *request) serve(site *attach.Site, c *config.Config, a port.Attachment, result *types100.Result, answer func() error) error {
	if !c.Gateway.Given() {
		return answer()
	}
	wish, err := c.Gateway.Wish(r.ownIPs(c, result))
	if err != nil {
		return err
	}
	return site.Serve(a, wish, answer)
}

// served is the part of CHECK about the bridge's side.
func (r *request) served(site *attach.Site, c *config.Config) error {
	if !c.Gateway.Given() {
		return nil
	}
	wish, err := c.Gateway.Wish(r.ownIPs(c, c.PrevResult))
	if err != nil {
		return err
	}
	return site.Served(port.Attachment{ID: r.id(), Network: c.Name, Bridge: c.Bridge}, wish)
}
