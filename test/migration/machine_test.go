package migration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/test/guest"
)

// system is what every machine runs.
type system struct {
	guest.Tools
	initrd string
}

func findSystem(t *testing.T) system {
	t.Helper()
	if testing.Short() || os.Getenv("TAPBRIDGE_TEST_QEMU") != "1" {
		nstest.Skip(t, "QEMU guests, and the Debian packages they need, are for TAPBRIDGE_TEST_QEMU=1 without -short")
	}
	cache, err := os.UserCacheDir()
	must(t, err)
	tools, err := guest.FindTools(t.Context(), filepath.Join(cache, "tapbridge"), t.Logf)
	must(t, err)
	content, err := guest.GuestInitramfs(tools)
	must(t, err)
	s := system{tools, filepath.Join(t.TempDir(), "initrd")}
	must(t, os.WriteFile(s.initrd, content, 0o600))
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// machine is a QEMU, and its monitor.
type machine struct {
	t       *testing.T
	cmd     *exec.Cmd
	ended   chan struct{}
	said    strings.Builder // by QEMU itself; read it when ended is closed
	console string          // path of the socket of the serial line
	monitor net.Conn
	replies chan reply

	mu     sync.Mutex
	events []event
}

type reply struct {
	Return json.RawMessage
	Error  *struct{ Desc string }
}

type event struct {
	Event     string
	Data      struct{ Status string }
	Timestamp struct{ Seconds, Microseconds int64 }
}

func (e event) at() time.Time {
	return time.Unix(e.Timestamp.Seconds, e.Timestamp.Microseconds*1000)
}

// start runs a machine in the pod, and waits for its monitor.
func (s system) start(t *testing.T, pod *nstest.NS, nic guest.NIC, more ...string) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, ended: make(chan struct{}), console: dir + "/console", replies: make(chan reply, 1)}
	args := guest.Arguments([]guest.NIC{nic}, s.Kernel, s.initrd, "unix:"+m.console+",server=on,wait=off")
	m.cmd = exec.Command(s.QEMU, append(append(args, "-qmp", "unix:"+dir+"/qmp,server=on,wait=off"), more...)...)
	m.cmd.Stdout, m.cmd.Stderr = &m.said, &m.said
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go pod.Do(func() { // the thread stays: its end would be the machine's
		defer close(m.ended)
		err := m.cmd.Start()
		if started <- err; err == nil {
			_ = m.cmd.Wait() // it is killed
		}
	})
	must(t, <-started)
	t.Cleanup(m.kill)
	m.dial(dir + "/qmp")
	return m
}

// kill returns when the machine's tap is closed.
func (m *machine) kill() {
	_ = m.cmd.Process.Kill() // an error: it has ended
	<-m.ended
}

func (m *machine) dial(path string) {
	m.t.Helper()
	m.monitor = connect(m, path)
	m.t.Cleanup(func() { _ = m.monitor.Close() })
	go m.listen()
	m.do("qmp_capabilities", nil)
	m.do("migrate-set-capabilities", arguments{"capabilities": []arguments{{"capability": "events", "state": true}}})
	m.do("migrate-set-parameters", arguments{"max-bandwidth": 1 << 30})
}

// connect waits for QEMU to make its socket.
func connect(m *machine, path string) (conn net.Conn) {
	m.t.Helper()
	m.await("socket "+filepath.Base(path), func() (ok bool) {
		var err error
		conn, err = net.Dial("unix", path)
		return err == nil
	})
	return conn
}

func (m *machine) listen() {
	lines := json.NewDecoder(m.monitor)
	for {
		var raw json.RawMessage
		if lines.Decode(&raw) != nil {
			return // closed
		}
		var e event
		var r reply
		if json.Unmarshal(raw, &e) == nil && e.Event != "" {
			m.mu.Lock()
			m.events = append(m.events, e)
			m.mu.Unlock()
		} else if json.Unmarshal(raw, &r) == nil && (r.Return != nil || r.Error != nil) {
			m.replies <- r
		}
	}
}

type arguments map[string]any

// do runs a command of the monitor.
func (m *machine) do(command string, args arguments) json.RawMessage {
	m.t.Helper()
	request := arguments{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	must(m.t, json.NewEncoder(m.monitor).Encode(request))
	select {
	case r := <-m.replies:
		if r.Error != nil {
			m.t.Fatalf("QEMU: %s: %s", command, r.Error.Desc)
		}
		return r.Return
	case <-m.ended:
		m.t.Fatalf("QEMU has ended: %s", m.said.String())
	case <-time.After(patience):
		m.t.Fatalf("QEMU: no answer to %s", command)
	}
	return nil
}

// patience bounds each wait for QEMU.
const patience = time.Minute

func (m *machine) await(what string, ok func() bool) {
	m.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
		select {
		case <-m.ended:
			m.t.Fatalf("%s: QEMU has ended: %s", what, m.said.String())
		default:
		}
	}
	m.t.Fatalf("%s: not within %v", what, patience)
}

// awaitEvent returns when it was.
func (m *machine) awaitEvent(name, status string) (at time.Time) {
	m.t.Helper()
	m.await("event "+name+" "+status, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, e := range m.events {
			if e.Event == "MIGRATION" && e.Data.Status == "failed" {
				m.t.Error(errors.New("the migration has failed"))
			}
			if e.Event == name && e.Data.Status == status {
				at = e.at()
			}
		}
		return !at.IsZero()
	})
	return at
}

// save stops the machine, and keeps it in a file.
func (m *machine) save(path string) {
	m.t.Helper()
	m.do("stop", nil)
	m.do("migrate", arguments{"uri": "exec:cat > " + path})
	m.awaitEvent("MIGRATION", "completed")
	m.kill()
}

// restored is a machine that goes on where a saved one was.
func (s system) restored(t *testing.T, pod *nstest.NS, nic guest.NIC, saved string) *machine {
	t.Helper()
	m := s.start(t, pod, nic, "-incoming", "exec:cat "+saved)
	m.awaitEvent("MIGRATION", "completed")
	m.do("cont", nil)
	return m
}

// migrate moves the machine to another that waits on address, the way libvirt does,
// and returns when it has stopped here and gone on there.
func (m *machine) migrate(to *machine, address string) (stopped, left, resumed time.Time) {
	m.t.Helper()
	m.do("migrate", arguments{"uri": fmt.Sprintf("tcp:%s", address)})
	m.awaitEvent("MIGRATION", "completed")
	stopped = m.awaitEvent("STOP", "")
	to.awaitEvent("MIGRATION", "completed")
	left = time.Now()
	m.kill()
	to.do("cont", nil)
	return stopped, left, to.awaitEvent("RESUME", "")
}
