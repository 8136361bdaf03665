package bench

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// headerLen is that of the header that tells of offloads before each frame
// (struct virtio_net_hdr).
const headerLen = 10

// openTap opens an existing tap of the thread's network namespace as a VMM does,
// for one that sends and receives as fast as it can: it does not block. With
// offloads each frame has a header before it, and can be as large as 64 KiB.
func openTap(name string, offloads bool) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := attachTap(fd, name, offloads); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("open tap %q: %w", name, err)
	}
	return fd, nil
}

func attachTap(fd int, name string, offloads bool) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	flags, can := uint16(unix.IFF_TAP|unix.IFF_NO_PI), 0
	if offloads {
		flags |= unix.IFF_VNET_HDR
		can = unix.TUN_F_CSUM | unix.TUN_F_TSO4
	}
	request.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return err
	}
	return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, can)
}
