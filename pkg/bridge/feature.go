package bridge

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// VLANOption is what a kernel that can filter VLANs was built with.
const VLANOption = "CONFIG_BRIDGE_VLAN_FILTERING"

// ErrNoVLANs is ErrUnsupported.
var ErrNoVLANs = fmt.Errorf("VLAN filtering: %w, which was built without %s", ErrUnsupported, VLANOption)

// CanFilterVLANs reports whether the kernel can make a bridge VLAN-aware. One that
// cannot ignores the wish without a word when a bridge is made, and before that
// there may be no bridge to look at; but it does not know the request for VLANs
// either, which is built in together with them (net/bridge/br_vlan.c,
// br_vlan_rtnl_init; Linux 5.6).
func CanFilterVLANs(c *rtnl.Conn) (bool, error) {
	if err := loadModule(); err != nil {
		return false, fmt.Errorf("load the kernel's bridge module: %w", err)
	}
	const loopback = 1 // no bridge and no port, so that nothing need be listed
	_, err := c.Dump(unix.RTM_GETVLAN, unix.RTM_NEWVLAN, vlanRequest(loopback))
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return false, nil
	case err == nil || errors.Is(err, unix.EINVAL): // br_vlan_dump_dev: it is neither
		return true, nil
	}
	return false, fmt.Errorf("ask the kernel for VLANs: %w", err)
}

// loadModule asks for the version of the kernel's old bridge interface, which is 1
// for ever: in order to answer the kernel loads the module (net/socket.c,
// br_ioctl_call), as it does when a bridge is made.
func loadModule() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	version, err := unix.NewIfreq("") // all zero: BRCTL_GET_VERSION (linux/if_bridge.h)
	if err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, unix.SIOCGIFBR, version)
}
