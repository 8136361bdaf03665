package doctor

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/remedy"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
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
	switch carried := remedy.Of(err); {
	case carried != "":
		return carried
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
