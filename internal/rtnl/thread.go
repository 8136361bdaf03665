package rtnl

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// thread runs functions in one network namespace, all on one thread, which is made
// for the first of them: to make one and move it costs as much as a tap. The zero
// thread is ready; functions must not call run themselves.
type thread struct {
	mu   sync.Mutex
	jobs chan func()
}

// run calls f on the thread and waits for it.
func (t *thread) run(in ns.NetNS, f func() error) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.jobs == nil {
		if err := t.begin(in); err != nil {
			return err
		}
	}
	done := make(chan struct{})
	t.jobs <- func() {
		defer close(done)
		err = f()
	}
	<-done
	return err
}

// begin starts the thread. It never leaves the namespace: that its goroutine ends
// locked to it ends it as well.
func (t *thread) begin(in ns.NetNS) error {
	jobs, entered := make(chan func()), make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(in.Fd()), unix.CLONE_NEWNET)
		entered <- err
		if err != nil {
			return
		}
		for job := range jobs {
			job()
		}
	}()
	if err := <-entered; err != nil {
		return fmt.Errorf("enter network namespace %q: %w", in.Path(), err)
	}
	t.jobs = jobs
	return nil
}

func (t *thread) end() {
	if t.jobs != nil {
		close(t.jobs)
	}
}
