package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cmdline makes the guest quiet and quick to boot. panic=-1 with QEMU's -no-reboot: a guest that panics ends. The emulated clock is
// stable and its speed given, so that the kernel does not measure them.
const cmdline = "console=ttyS0 quiet panic=-1 tsc=reliable lpj=4000000 mitigations=off nokaslr"

// Linux is a guest that also runs commands.
type Linux struct{ console *console }

// Boot waits until a guest has booted that somebody else has started with [Arguments], in a pod for example: serial is the other
// end of its serial line. The guest ends with its QEMU.
func Boot(ctx context.Context, serial io.ReadWriteCloser) (*Linux, error) {
	g := Resume(serial)
	hangUp := func() error {
		_ = serial.Close() // an error: the guest was faster
		<-g.console.ended
		return nil
	}
	if err := g.booted(ctx, hangUp); err != nil {
		return nil, fmt.Errorf("boot a guest: %w", err)
	}
	return g, nil
}

// Resume is a guest that has booted before, and goes on where it was saved or migrated from.
func Resume(serial io.ReadWriteCloser) *Linux { return &Linux{newConsole(serial, serial)} }

type qemu struct {
	Linux
	cmd  *exec.Cmd
	done chan struct{} // closed when QEMU is gone
}

// QEMU starts Linux in a virtual machine and waits until it has booted.
func QEMU(ctx context.Context, nic NIC, t Tools) (Guest, error) {
	if err := cmp.Or(nic.check(), ctx.Err()); err != nil {
		return nil, err
	}
	g, err := startQEMU(nic, t)
	if err != nil {
		return nil, fmt.Errorf("start %q on tap %q: %w", t.QEMU, nic.Tap, err)
	}
	if err := g.booted(ctx, g.Close); err != nil {
		return nil, fmt.Errorf("boot a guest on tap %q: %w", nic.Tap, err)
	}
	return g, nil
}

// booted waits until init.sh has set up the guest, and ends one that fails to. If that takes too long, the error says how far it got.
func (g *Linux) booted(ctx context.Context, end func() error) error {
	r, err := g.console.await(ctx)
	switch {
	case err != nil && errors.Is(err, ctx.Err()):
		return errors.Join(err, end(), g.console.end())
	case err == nil && r.status != 0:
		err = fmt.Errorf("set up the network card: %s", r.said)
	}
	if err != nil {
		err = errors.Join(err, end())
	}
	return err
}

// startQEMU starts the virtual machine in the tap's namespace: QEMU opens the tap itself, by its name.
func startQEMU(nic NIC, t Tools) (*qemu, error) {
	initrd, err := initrdFile(t)
	if err != nil {
		return nil, err
	}
	defer initrd.Close()
	cmd := exec.Command(t.QEMU, Arguments([]NIC{nic}, t.Kernel, "/proc/self/fd/3", "stdio")...)
	cmd.ExtraFiles = []*os.File{initrd}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, stdout, err := os.Pipe() // not StdoutPipe: Wait would close it before the last words are read
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	cmd.Stdout, cmd.Stderr = stdout, stdout
	g := &qemu{cmd: cmd, done: make(chan struct{})}
	if err := g.runInside(nic); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	g.console = newConsole(in, out)
	return g, nil
}

// runInside starts QEMU and keeps the thread that did until QEMU has ended: Linux sends the death signal when that thread ends, and Go
// ends threads that were in another namespace.
func (g *qemu) runInside(nic NIC) error {
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 2)
	go func() {
		defer close(g.done)
		err := nic.inside(func(*net.Interface) error {
			if err := g.cmd.Start(); err != nil {
				return err
			}
			started <- nil
			return g.cmd.Wait()
		})
		started <- err // if it never got that far
	}()
	return <-started
}

// initrdFile returns a file with the initramfs that goes when nobody has it open.
func initrdFile(t Tools) (*os.File, error) {
	content, err := GuestInitramfs(t)
	if err != nil {
		return nil, fmt.Errorf("build the initramfs: %w", err)
	}
	fd, err := unix.MemfdCreate("initrd", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "initrd")
	if _, err := f.Write(content); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Arguments describes the virtual machine to QEMU; serial is the character device of its console. The guest sets up its first card,
// with an address if there is one. Emulation, always: /dev/kvm says little about whether KVM works on a machine that is virtual
// itself, and a guest that hangs in its first instructions is a bad way to learn it.
func Arguments(nics []NIC, kernel, initrd, serial string) []string {
	addr := ""
	if nics[0].Addr.IsValid() {
		addr = nics[0].Addr.String()
	}
	args := []string{
		"-accel", "tcg", "-M", "q35", "-cpu", "max", "-m", "128", "-smp", "1",
		"-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", serial, "-monitor", "none",
		"-kernel", kernel, "-initrd", initrd,
		"-append", fmt.Sprintf("%s guest.addr=%s guest.mtu=%d", cmdline, addr, nics[0].MTU),
	}
	for i, nic := range nics {
		args = append(args,
			"-netdev", fmt.Sprintf("tap,id=tap%d,ifname=%s,script=no,downscript=no,vhost=off", i, nic.Tap),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=tap%d,mac=%s,romfile=", i, nic.MAC))
	}
	return args
}

// Run runs a shell command in the guest and returns what it said; that it ended with another status than 0 is an error.
func (g *Linux) Run(ctx context.Context, command string) (string, error) {
	r, err := g.console.run(ctx, command)
	if err = shellError(r, err); err != nil {
		return "", fmt.Errorf("run %q in the guest: %w", command, err)
	}
	return r.said, nil
}

// Ping implements [Guest].
func (g *Linux) Ping(ctx context.Context, dst netip.Addr, count int) (Ping, error) {
	if err := checkPing(dst, count); err != nil {
		return Ping{}, err
	}
	r, err := g.console.run(ctx, fmt.Sprintf("ping -i 0.1 -c %d -W %d %s", count, int(echoWait.Seconds()), dst))
	if err != nil {
		return Ping{}, fmt.Errorf("ping %q: %w", dst, err)
	}
	return parsePing(r.said)
}

var (
	pingSummary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) packets received`)
	pingAnswer  = regexp.MustCompile(`(?m)^\d+ bytes from .* time=([\d.]+) ms$`) // a duplicate ends in (DUP!)
)

// parsePing reads what busybox' ping printed.
func parsePing(said string) (Ping, error) {
	var p Ping
	summary := pingSummary.FindStringSubmatch(said)
	if summary == nil {
		return p, fmt.Errorf("ping printed no summary: %q", said)
	}
	p.Sent, _ = strconv.Atoi(summary[1])
	p.Received, _ = strconv.Atoi(summary[2])
	for _, answer := range pingAnswer.FindAllStringSubmatch(said, -1) {
		rtt, err := time.ParseDuration(answer[1] + "ms")
		if err != nil {
			return p, fmt.Errorf("round-trip time: %w", err)
		}
		p.RTTs = append(p.RTTs, rtt)
	}
	return p, nil
}

// Serve implements [Guest].
func (g *Linux) Serve(port uint16) error {
	r, err := g.console.run(context.Background(), fmt.Sprintf("serve %d", port))
	if err = shellError(r, err); err != nil {
		return fmt.Errorf("serve port %d: %w", port, err)
	}
	return nil
}

// Transfer implements [Guest].
func (g *Linux) Transfer(ctx context.Context, dst netip.AddrPort, bytes int64) (Transfer, error) {
	if err := checkTransfer(dst, bytes); err != nil {
		return Transfer{}, err
	}
	start := time.Now()
	command := fmt.Sprintf("dd if=/dev/zero bs=64k count=%d iflag=count_bytes status=none | nc %s %d", bytes, dst.Addr(), dst.Port())
	r, err := g.console.run(ctx, command)
	took := time.Since(start)
	if err = cmp.Or(shellError(r, err), checkAnswer(r.said, bytes)); err != nil {
		return Transfer{}, fmt.Errorf("transfer %d bytes to %q: %w", bytes, dst, err)
	}
	return Transfer{bytes, took}, nil
}

// shellError is err, or else what a command said that ended badly.
func shellError(r reply, err error) error {
	if err == nil && r.status != 0 {
		err = fmt.Errorf("status %d: %s", r.status, strings.TrimSpace(r.said))
	}
	return err
}

// Close kills QEMU: the guest has no disk, so there is nothing to shut down in order.
func (g *qemu) Close() error {
	if err := g.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-g.done
	<-g.console.ended
	return nil
}
