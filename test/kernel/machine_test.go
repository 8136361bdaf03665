package kernel

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/test/guest"
)

// patience is how long the guest may take altogether: several times what it needs, for emulation on a busy machine is slow, and less
// than the half hour that the Makefile gives go test. The tests of one package may take less (init.sh), so that they can still say where they were.
const patience = 20 * time.Minute

// cmdline makes a warning of the kernel a panic, and a panic the end of the guest. Watchdogs would mistake a busy host for a kernel
// that hangs. SELinux without a policy permits everything, but gives every task a context. The rest is for speed, as in package guest.
const cmdline = "console=ttyS0 loglevel=5 panic=-1 oops=panic panic_on_warn=1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 security=selinux selinux=1" +
	" tsc=reliable lpj=4000000 mitigations=off nokaslr"

// machine is a guest that runs.
type machine struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner // of the serial console
	cause func() error   // why it was killed, if it was
}

// start boots the kernel in an emulated machine, always: package guest says why there is no KVM. It ends with the test, and with
// this process. Its network card is one for tests to have as an uplink, and leads nowhere.
func start(t *testing.T, tools guest.Tools, initramfs []byte) *machine {
	t.Helper()
	initrd := filepath.Join(t.TempDir(), "initrd")
	must(t, os.WriteFile(initrd, initramfs, 0o600))
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("the guest was not done after %v", patience))
	cmd := exec.CommandContext(ctx, tools.QEMU, "-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "max", "-m", "1024", "-smp", "2",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-monitor", "none",
		"-netdev", "user,id=nowhere,restrict=on", "-device", "virtio-net-pci,netdev=nowhere,mac=02:00:00:00:00:02,romfile=",
		"-kernel", tools.Kernel, "-initrd", initrd, "-append", cmdline)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	console, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = cmd.Stdout
	must(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(console)
	lines.Buffer(nil, 1<<20) // for what tests say of a mismatch
	return &machine{cmd, lines, func() error { return context.Cause(ctx) }}
}

// trouble is what the kernel says of itself in its log. Its lines come amid those of others.
var trouble = regexp.MustCompile(`\[ *\d+\.\d{6}\] .*(WARNING|BUG|Oops|panic|Call Trace)`)

// listen passes on what the guest says until the tests of a package have ended, and returns their status.
func (m *machine) listen(t *testing.T, pkg string, hear func(line string)) (status int) {
	t.Helper()
	for m.lines.Scan() {
		line := strings.TrimRight(m.lines.Text(), "\r")
		if n, _ := fmt.Sscanf(line, "#end "+pkg+" %d", &status); n == 1 {
			return status
		}
		fmt.Fprintln(t.Output(), "guest:", line)
		if trouble.MatchString(line) {
			t.Errorf("the kernel is in trouble: %s", line)
		}
		hear(line)
	}
	t.Fatal(cmp.Or(m.lines.Err(), m.cause(), errors.New("the guest ended before the tests did")))
	return
}

// off waits for the guest to power off.
func (m *machine) off(t *testing.T) {
	t.Helper()
	for m.lines.Scan() {
		fmt.Fprintln(t.Output(), "guest:", m.lines.Text())
	}
	if err := m.cmd.Wait(); err != nil {
		t.Errorf("QEMU: %v", cmp.Or(m.cause(), err))
	}
}
