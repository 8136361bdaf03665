// Command peer is the only program in the tests' container image. It is what a pod runs when no VM does, and opens a tap as a VMM
// would. Its TCP server and client speak as the guests of package guest do.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const usage = `usage: peer [pause]
       peer serve ADDRESS        read each connection to its end and answer with the number of bytes
       peer send ADDRESS BYTES   send them, and print the answer
       peer tap NAME [multi]     open a tap, with or without multi_queue
       peer hold NAME            open a tap and keep it`

func main() {
	if err := do(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func do(args []string) error {
	command := "pause"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch {
	case command == "pause":
		pause()
		return nil
	case command == "serve" && len(args) == 1:
		return serve(args[0])
	case command == "send" && len(args) == 2:
		return send(args[0], args[1])
	case command == "tap" && len(args) == 1:
		return tap(args[0], 0)
	case command == "tap" && len(args) == 2 && args[1] == "multi":
		return tap(args[0], unix.IFF_MULTI_QUEUE)
	case command == "hold" && len(args) == 1:
		return hold(args[0])
	}
	return errors.New(usage)
}

// pause waits to be told to end. It is process 1 of its pid namespace, so it also buries orphans.
func pause() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for pid := 1; pid > 0; {
			pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		}
	}
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if n, err := io.Copy(io.Discard, conn); err == nil {
				fmt.Fprintln(conn, n)
			}
		}()
	}
}

func send(address, count string) error {
	bytes, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout("tcp", address, time.Minute)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.CopyN(conn, zeros{}, bytes); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// zeros is /dev/zero, which a container need not have.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func hold(name string) error {
	err := tap(name, 0)
	if err == nil {
		pause()
	}
	return err
}

// tap opens an existing tap as QEMU does: the kernel decides whether this user may. The process keeps it until it ends.
func tap(name string, flags uint16) error {
	if _, err := net.InterfaceByName(name); err != nil {
		return err // TUNSETIFF would try to create it
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", "/dev/net/tun", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("open tap %q: %w", name, err)
	}
	return nil
}
