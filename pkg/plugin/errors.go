package plugin

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/gateway"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

var (
	errEnvironment = errors.New("invalid environment")
	errVersion     = errors.New("incompatible CNI version")
	errOwnNetNS    = errors.New("the pod's network namespace is the plugin's own")
	errIO          = errors.New("input or output failed")
	errUnavailable = errors.New("the plugin cannot attach anything")
	errLimited     = errors.New("attachments have no connectivity")
)

// The codes of STATUS, which version 1.3.0 of the library has no names for; 1.3.1
// has, but makes the plugin a third larger (its package invoke brings net/http
// along).
const (
	codeUnavailable = 50
	codeLimited     = 51
)

// codeDrift is what CHECK answers when a port is not as it should be; codes from
// 100 on are the plugin's own.
const codeDrift = 100

// codes are tried in order: the first that err is decides. What is temporary in
// the kernel's eyes stands last, so that it never hides a better reason.
var codes = []struct {
	err  error
	code uint
}{
	{errVersion, types.ErrIncompatibleCNIVersion},
	{config.ErrUnsupported, types.ErrUnsupportedField},
	{errEnvironment, types.ErrInvalidEnvironmentVariables},
	{config.ErrArgs, types.ErrInvalidEnvironmentVariables},
	{attach.ErrExists, types.ErrInvalidEnvironmentVariables},
	{errIO, types.ErrIOFailure},
	{config.ErrDecode, types.ErrDecodingFailure},
	{errUnavailable, codeUnavailable},
	{errLimited, codeLimited},
	{bridge.ErrUnsupported, codeUnavailable},
	{tap.ErrUnsupported, codeUnavailable},
	{tap.ErrNoDevice, codeUnavailable},
	{tap.ErrUnmapped, types.ErrInvalidNetworkConfig},
	{gateway.ErrUnsupported, codeUnavailable},
	{guard.ErrUnsupported, codeUnavailable},
	{unix.EROFS, codeUnavailable},
	{gateway.ErrAddress, types.ErrInvalidNetworkConfig},
	{config.ErrInvalid, types.ErrInvalidNetworkConfig},
	{attach.ErrStale, types.ErrTryAgainLater},
	{bridge.ErrNotFound, types.ErrInvalidNetworkConfig},
	{bridge.ErrNotBridge, types.ErrInvalidNetworkConfig},
	{errOwnNetNS, types.ErrInvalidNetNS},
	{attach.ErrTaken, types.ErrTryAgainLater},
	{attach.ErrBusy, types.ErrTryAgainLater},
	{port.ErrDrift, codeDrift},
	{unix.EBUSY, types.ErrTryAgainLater},
	{unix.EINTR, types.ErrTryAgainLater},
	{unix.EAGAIN, types.ErrTryAgainLater},
	{unix.ENOBUFS, types.ErrTryAgainLater},
	{unix.ENOMEM, types.ErrTryAgainLater},
}

// code is the CNI code of an error; a delegate's own stays what it is.
func code(err error) uint {
	var e *types.Error
	if errors.As(err, &e) {
		return e.Code
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return types.ErrInternal
}

// longestMessage bounds what is quoted of an input, in bytes: callers log it, and
// keep it in events.
const longestMessage = 4000

func shortened(msg string) string {
	if len(msg) <= longestMessage {
		return msg
	}
	return strings.ToValidUTF8(msg[:longestMessage], "") + fmt.Sprintf("… (%d bytes in all)", len(msg))
}

// printError answers with the error result of the specification, in one line of
// text.
func (r *request) printError(err error) {
	v := r.config.CNIVersion
	if v == "" {
		v = newest
	}
	msg, details := shortened(strings.ReplaceAll(err.Error(), "\n", "; ")), ""
	if errors.Is(err, errVersion) { // the specification's reconciler tells the versions in details
		_, details, _ = strings.Cut(msg, ": ")
	}
	answer := struct {
		CNIVersion string `json:"cniVersion"`
		Code       uint   `json:"code"`
		Msg        string `json:"msg"`
		Details    string `json:"details,omitempty"`
	}{v, code(err), msg, details}
	if err := r.print(answer); err != nil {
		fmt.Fprintf(r.stderr, "tapbridge: %s; and the caller does not listen: %v\n", answer.Msg, err)
	}
}
