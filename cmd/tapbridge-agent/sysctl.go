package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const sysctls = "/proc/sys"

// openSysctls makes /proc/sys writable where a container runtime has mounted it
// read-only, in the agent's own mount namespace: IPv6 can be turned off on a device
// in no other way. What may be written there is decided by other things than that
// mount. Elsewhere it does nothing.
func openSysctls() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(sysctls, &fs); err != nil {
		return fmt.Errorf("stat %s: %w", sysctls, err)
	}
	if fs.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("", sysctls, "", flags, ""); err != nil {
		return fmt.Errorf("make %s writable: %w", sysctls, err)
	}
	return nil
}
