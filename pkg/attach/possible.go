package attach

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Possible reports why no Apply could work here, whatever it is asked for: for want of
// the lock's file, or of the sysctl by which devices are muted. It only looks.
func Possible() error {
	file := lockFile
	err := unix.Access(file, unix.W_OK)
	if errors.Is(err, unix.ENOENT) {
		file = filepath.Dir(lockFile)
		err = unix.Access(file, unix.W_OK)
	}
	if err != nil {
		return remedied("/run", fmt.Errorf("write %s: %w", file, err))
	}
	return remedied("/proc/sys", rtnl.CanMute())
}

// remedied tells what to do where a file system is mounted read-only.
func remedied(mount string, err error) error {
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w: mount %s writable", err, mount)
	}
	return err
}
