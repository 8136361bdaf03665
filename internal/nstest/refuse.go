package nstest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Refuse makes the kernel answer a system call of this process, and of all its
// children, with EPERM, as a container's seccomp profile does. There is no way
// back: it is for a process that a test has started.
func Refuse(call uint32) error {
	const numberOfCall = 0 // offsetof(struct seccomp_data, nr)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: numberOfCall},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("refuse system call %d: %w", call, errno)
	}
	return nil
}
