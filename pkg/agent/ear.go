package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/pkg/mac"
)

// ear hears who speaks on a locked port, from which the bridge learns nothing.
//
// The bridge could tell itself (the port flag mab, Linux 6.2), but not of an address
// that it knows from elsewhere: it drops such a frame without a word
// (net/bridge/br_input.c, br_handle_frame_finish). In a live migration that is every
// frame: the guest is known from the uplink. And with mab, frames to any address that
// a guest has made up, and that nobody else has used, would go to the guest.
type ear struct {
	index  int // of the port
	guest  mac.Addr
	file   *os.File
	closed chan struct{}
}

const (
	// mostForeign is how many strangers are told of: after that the kernel passes
	// the guest's frames only, so that a guest cannot keep the agent busy.
	mostForeign = 16
	// rest is how long an ear is deaf after the guest has spoken, for the same
	// reason: it is closed by then, unless something is in the way.
	rest = 10 * time.Millisecond
)

// openEar listens on the device at index, in the namespace of the thread.
func openEar(index int, guest mac.Addr) (*ear, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0) // unbound: nothing arrives yet
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	everything := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1), // Linux 4.20: what goes to the guest
		filter(fd, headers),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: index}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on link %d: %w", index, err), unix.Close(fd))
	}
	return &ear{index, guest, os.NewFile(uintptr(fd), "ear"), make(chan struct{})}, nil
}

// close does not wait for the kernel, which waits for all its readers
// (net/packet/af_packet.c, packet_release).
func (e *ear) close() {
	close(e.closed)
	go e.file.Close()
}

// listen tells of the guest, and of each stranger once, until the ear is closed.
func (e *ear) listen(port string, voices chan<- voice) {
	foreign := map[mac.Addr]bool{}
	var header [headerLen]byte
	for {
		n, err := e.file.Read(header[:])
		if errors.Is(err, unix.ENETDOWN) {
			continue // once, when the link goes down
		}
		if err != nil {
			return
		}
		from := mac.From(header[sourceAt:min(n, headerLen)])
		if foreign[from] || from != e.guest && len(foreign) == mostForeign { // it was on its way
			continue
		}
		select {
		case voices <- voice{port, from, time.Now()}:
		case <-e.closed:
			return
		}
		if from == e.guest {
			time.Sleep(rest)
			continue
		}
		foreign[from] = true
		if len(foreign) == mostForeign && e.narrow() != nil {
			return
		}
	}
}

// narrow lets only what the guest itself sends through.
func (e *ear) narrow() error {
	raw, err := e.file.SyscallConn()
	if err != nil {
		return err
	}
	var filterErr error
	err = raw.Control(func(fd uintptr) { filterErr = filter(int(fd), from(e.guest)) })
	return errors.Join(err, filterErr)
}

// Of an Ethernet header.
const sourceAt, headerLen = 6, 12

// headers passes the addresses of every frame.
var headers = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: headerLen}}

// from passes those of the frames that m has sent.
func from(m mac.Addr) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: sourceAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: binary.BigEndian.Uint32(m[:4])},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: sourceAt + 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(binary.BigEndian.Uint16(m[4:]))},
		headers[0],
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

func filter(fd int, program []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}
