package redirect

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// program is an eBPF program that sees each frame at a device's ingress. Its name
// says where it leads, so that it need not be read to know it: the kernel shows
// instructions after changes of its own, which hide the index where JIT code is
// hardened (kernel/bpf/core.c, bpf_jit_blind_constants).
//
// Four instructions and one system call do not pay for a library.
type program struct {
	name string
	code [4]instruction
}

// toDevice sends frames out at the device of that index.
func toDevice(index int) program {
	const redirect = 23 // BPF_FUNC_redirect
	return calling(redirect, fmt.Sprint("tapbridge to ", index), index)
}

// toPeer is for the index of a veth end: frames come in at its peer in another
// network namespace, at once. By way of the veth they would be queued, and wait for
// a softirq.
func toPeer(index int) program {
	const redirectPeer = 155 // BPF_FUNC_redirect_peer
	return calling(redirectPeer, fmt.Sprint("tapbridge to peer of ", index), index)
}

// calling does what the function of the kernel makes of index, and no flags.
func calling(function int32, name string, index int) program {
	const move, call, exit = unix.BPF_ALU64 | unix.BPF_MOV, unix.BPF_JMP | unix.BPF_CALL, unix.BPF_JMP | unix.BPF_EXIT
	return program{name, [...]instruction{
		{code: move, registers: 1, value: int32(index)},
		{code: move, registers: 2, value: 0},
		{code: call, value: function},
		{code: exit},
	}}
}

// instruction is struct bpf_insn.
type instruction struct {
	code      uint8
	registers uint8 // where the result goes: the lower half on little-endian machines; others refuse the program
	_         int16
	value     int32
}

// request is what BPF_PROG_LOAD reads of union bpf_attr, up to the last field that
// is used. Pointers are of 64 bits, on any machine.
type request struct {
	kind    uint32
	length  uint32
	code    unsafe.Pointer
	_       [8 - unsafe.Sizeof(uintptr(0))]byte
	license unsafe.Pointer
	_       [8 - unsafe.Sizeof(uintptr(0))]byte
	_       [24]byte // the verifier's log, flags
	name    [unix.BPF_OBJ_NAME_LEN]byte
}

// attempts bounds how often a program is loaded again: the verifier gives up at
// any signal (EAGAIN), and Go's runtime sends itself some.
const attempts = 20

// load gives the program to the kernel, for as long as somebody holds it.
func (p program) load() (fd int, err error) {
	license := [...]byte{'A', 'p', 'a', 'c', 'h', 'e', '-', '2', '.', '0', 0}
	r := request{
		kind:   unix.BPF_PROG_TYPE_SCHED_CLS,
		length: uint32(len(p.code)), code: unsafe.Pointer(&p.code),
		license: unsafe.Pointer(&license),
		name:    [...]byte{0: 't', 'a', 'p', 'b', 'r', 'i', 'd', 'g', 'e', 15: 0},
	}
	for range attempts {
		if fd, err = bpf(unix.BPF_PROG_LOAD, &r); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if err != nil {
		return -1, fmt.Errorf("load eBPF program %q: %w", p.name, err)
	}
	return fd, nil
}

// bpf is bpf(2).
func bpf(command uintptr, r *request) (int, error) {
	result, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(r)), unsafe.Sizeof(*r))
	runtime.KeepAlive(r)
	if errno != 0 {
		return -1, errno
	}
	return int(result), nil
}
