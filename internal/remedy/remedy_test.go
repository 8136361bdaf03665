package remedy_test

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/remedy"
)

// A remedy is found whatever is around the error that carries it, and is said once.
func TestRemedyIsSaidOnce(t *testing.T) {
	readOnly := remedy.Mount(fmt.Errorf("write /run: %w", unix.EROFS), "/run")
	const mount = "mount /run writable, in a container the node's: it must be there and writable"
	for _, c := range []struct {
		err                error
		text, says, remedy string
	}{
		{readOnly, "write /run: read-only file system: " + mount, "write /run: read-only file system", mount},
		{fmt.Errorf("lock: %w", readOnly), "lock: write /run: read-only file system: " + mount, "lock: write /run: read-only file system", mount},
		{errors.Join(readOnly, unix.EIO), "write /run: read-only file system: " + mount + "\ninput/output error", "write /run: read-only file system\ninput/output error", mount},
		{remedy.Mount(unix.EIO, "/run"), "input/output error", "input/output error", ""},
	} {
		says, what := remedy.Without(c.err), remedy.Of(c.err)
		if c.err.Error() != c.text || says != c.says || what != c.remedy {
			t.Errorf("%q: %q and %q, want %q and %q", c.err, says, what, c.says, c.remedy)
		}
	}
	if !errors.Is(readOnly, unix.EROFS) || remedy.Mount(nil, "/run") != nil {
		t.Error("the error is not what it was")
	}
}
