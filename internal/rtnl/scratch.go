package rtnl

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// OpenScratch connects to a new network namespace, which goes with the
// connection.
func OpenScratch() (c *Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine, in the new namespace
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("make a network namespace: %w", err)
			return
		}
		c, err = OpenAt("/proc/thread-self/ns/net")
	}()
	<-done
	return c, err
}
