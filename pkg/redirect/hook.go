package redirect

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The hooks of a device that are no queue of its own (BPF_TCX_INGRESS,
// BPF_TCX_EGRESS): what is attached there follows a device into another namespace.
const (
	tcxIngress = 46
	tcxEgress  = 47
)

// query is what BPF_PROG_QUERY reads of union bpf_attr, and writes.
type query struct {
	index uint32
	hook  uint32
	_     [8]byte
	ids   unsafe.Pointer
	_     [8 - unsafe.Sizeof(uintptr(0))]byte
	count uint32
	_     [36]byte // the last eight are the revision, which is written as well
}

// Hooked reports whether somebody has attached a program to the device at index in
// the namespace of the process, at tcx. A kernel without tcx (before 6.6) says so by
// EINVAL.
func Hooked(index int) (bool, error) {
	for _, hook := range []uint32{tcxIngress, tcxEgress} {
		q := query{index: uint32(index), hook: hook}
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&q)), unsafe.Sizeof(q))
		runtime.KeepAlive(&q)
		switch {
		case errors.Is(errno, unix.EINVAL), errors.Is(errno, unix.ENOENT), errors.Is(errno, unix.ENOSYS):
			continue
		case errno != 0:
			return false, fmt.Errorf("ask for programs at the device at index %d: %w", index, errno)
		case q.count > 0:
			return true, nil
		}
	}
	return false, nil
}
