package plugin

import (
	"fmt"
	"slices"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// result lists the attachment's interfaces behind those of an earlier plugin:
// the bridge, the port, the guest's NIC. The tap in the pod is left out: Multus
// would report it as a network of its own, and KubeVirt would then name the
// pod's interfaces differently.
func (r *request) result(site *attach.Site, c *config.Config, a port.Attachment) (*types100.Result, error) {
	br, err := bridge.Find(site.Host(), a.Bridge) // again: its MAC may have followed its ports
	if err != nil {
		return nil, err
	}
	result := &types100.Result{}
	if c.PrevResult != nil {
		*result = *c.PrevResult
	}
	result.CNIVersion = types100.ImplementedSpecVersion
	if !c.DNS.IsEmpty() {
		result.DNS = c.DNS
	}
	result.Interfaces = append(slices.Clone(result.Interfaces),
		&types100.Interface{Name: br.Name, Mac: br.MAC.String(), Mtu: br.MTU},
		&types100.Interface{Name: a.PortName(), Mac: a.Guest.Derived().String(), Mtu: a.PortMTU},
		&types100.Interface{Name: a.IfName, Mac: a.Guest.String(), Mtu: a.MTU, Sandbox: r.netNS})
	if c.VMConf {
		result.Interfaces = append(result.Interfaces, r.vmInterfaces(a)...)
	}
	return result, nil
}

// vmInterfaces describe tap and guest as firecracker-go-sdk's package cni/vmconf
// wants them: two entries of one name, the tap in the pod's namespace and the
// guest's NIC in a sandbox that is the container id.
func (r *request) vmInterfaces(a port.Attachment) []*types100.Interface {
	return []*types100.Interface{
		{Name: a.TapName(), Mac: a.Guest.Derived().String(), Mtu: a.MTU, Sandbox: r.netNS},
		{Name: a.TapName(), Mac: a.Guest.String(), Mtu: a.MTU, Sandbox: r.containerID},
	}
}

// checkVMAddress refuses what the SDK could not give to its guest.
func checkVMAddress(ips []*types100.IPConfig) error {
	if len(ips) == 1 && ips[0].Address.IP.To4() != nil && ips[0].Gateway != nil {
		return nil
	}
	given := make([]string, len(ips))
	for i, ip := range ips {
		if given[i] = ip.Address.String(); ip.Gateway != nil {
			given[i] += " via " + ip.Gateway.String()
		}
	}
	return fmt.Errorf(`%w: it gave %s: "vmconf" wants one IPv4 address with a gateway`, config.ErrInvalid, strings.Join(given, ", "))
}

// printResult answers in the version that was asked for.
func (r *request) printResult(c *config.Config, result *types100.Result) error {
	converted, err := result.GetAsVersion(c.CNIVersion)
	if err != nil {
		return fmt.Errorf("convert the result to version %s: %w", c.CNIVersion, err)
	}
	return r.print(converted)
}
