package doctor

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// Remedy is what to do about an error, whatever was tried.
func Remedy(err error) string {
	if remedy := ofNode(err); remedy != "" {
		return remedy
	}
	return "see what the kernel says (dmesg)"
}

// ofNode is the remedy where it is the node that keeps everybody from attaching
// anything; "" where it is not known to be.
func ofNode(err error) string {
	var path *fs.PathError
	switch {
	case errors.Is(err, tap.ErrNoDevice):
		return tap.Remedy
	case errors.Is(err, unix.EROFS), errors.As(err, &path) && errors.Is(err, unix.ENOENT):
		return "it must be there and writable: mount -o remount,rw, or in a container mount the node's"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "run it as root with CAP_NET_ADMIN and CAP_SYS_ADMIN, and look for what denies it (SELinux, AppArmor, seccomp)"
	case errors.Is(err, attach.ErrBusy) && !errors.Is(err, port.ErrDrift):
		return "look for a tapbridge process that hangs"
	}
	return ""
}

// lacks are the kernel's answers where it does not have a kind of link, qdisc, filter or
// action (ENOENT), a flag, or, with nothing but the difference to tell, an attribute.
var lacks = []error{bridge.ErrUnsupported, guard.ErrUnsupported, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.ENOENT, port.ErrDrift}

func lacking(err error) bool {
	return slices.ContainsFunc(lacks, func(e error) bool { return errors.Is(err, e) })
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
