package attach

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/remedy"
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
		return remedy.Mount(fmt.Errorf("write %s: %w", file, err), filepath.Dir(lockFile))
	}
	return rtnl.CanMute()
}
