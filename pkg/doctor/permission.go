package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Permitted says who would be permitted what err is about.
func Permitted(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	lacks := missing()
	switch {
	case len(lacks) == 0: // something else denies it
		return err
	case os.Geteuid() != 0:
		return fmt.Errorf("%w (tapbridge must be run by root)", err)
	}
	return fmt.Errorf("%w (tapbridge is run without %s)", err, strings.Join(lacks, " and "))
}

// missing are the capabilities that the process has not got, of those that README.md
// lists.
func missing() (names []string) {
	var sets [2]unix.CapUserData // of 32 capabilities each
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &sets[0]); err != nil {
		return nil
	}
	for _, c := range []struct {
		number int
		name   string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}} {
		if sets[0].Effective&(1<<c.number) == 0 {
			names = append(names, c.name)
		}
	}
	return names
}
