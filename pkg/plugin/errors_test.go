package plugin

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/gateway"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// A code is that of the reason, however much context is around it.
func TestCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want uint
	}{
		{config.ErrUnsupported, 2},
		{config.ErrArgs, 4},
		{errEnvironment, 4},
		{attach.ErrExists, 4},
		{errIO, 5},
		{config.ErrDecode, 6},
		{config.ErrInvalid, 7},
		{bridge.ErrNotFound, 7},
		{tap.ErrUnmapped, 7},
		{gateway.ErrAddress, 7},
		{gateway.ErrUnsupported, 50},
		{errOwnNetNS, 8},
		{attach.ErrTaken, 11},
		{attach.ErrBusy, 11},
		{unix.EBUSY, 11},
		{unix.ENOMEM, 11},
		{fmt.Errorf("%w: %w", errUnavailable, bridge.ErrNotFound), 50},
		{tap.ErrUnsupported, 50},
		{tap.ErrNoDevice, 50},
		{unix.EROFS, 50},
		{errLimited, 51},
		{&port.Drift{}, 100},
		{unix.EPERM, 999},
		{&types.Error{Code: 42}, 42},
		{errors.Join(unix.EPERM, &types.Error{Code: 42}), 42},
	} {
		if got := code(fmt.Errorf("set flags: %w", c.err)); got != c.want {
			t.Errorf("%v: code %d, want %d", c.err, got, c.want)
		}
	}
}
