//go:build !amd64

package conformance

import (
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

type blow struct {
	nth   int
	errno unix.Errno
}

func (c *caller) traced(blow) (answer, []string) {
	nstest.Skip(c.t, "the tracer knows the registers of amd64 only")
	return answer{}, nil
}
