package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// kata is a node on which Kata's runtime-rs attaches the taps, and the folder in
// which it looks for them.
type kata struct {
	*node
	dir string
}

func newKata(t *testing.T) kata {
	t.Helper()
	return kata{newNode(t, conf{"mode": "host-tap", "dan": true, "mac": guestMAC}, recording, libvirt), t.TempDir()}
}

// run is a call that finds our folder in place of /run/kata-containers.
func (k kata) run(verb string, stdin any, changes ...env) answer {
	k.t.Helper()
	return k.prepare(verb, stdin, changes...).masked(k.script()).run()
}

func (k kata) script() string {
	return "mount -t tmpfs none /run; mkdir /run/kata-containers; mount --bind " + k.dir + " /run/kata-containers"
}

func (k kata) path() string { return filepath.Join(k.dir, "dans", "c1.json") }

// devices are those in the sandbox's file; nil when there is none.
func (k kata) devices() []any {
	k.t.Helper()
	text, err := os.ReadFile(k.path())
	if os.IsNotExist(err) {
		return nil
	}
	var file struct{ Devices []any }
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return file.Devices
}

func (k kata) wantDevices(n int, when string) {
	k.t.Helper()
	if got := k.devices(); len(got) != n {
		k.t.Errorf("%s there are %d devices, want %d: %v", when, len(got), n, got)
	}
	if _, err := os.Stat(k.path()); n == 0 && err == nil {
		k.t.Errorf("%s there is a file", when)
	}
}

var guestsNetwork = gives("10.9.0.2/24", `"routes":[{"dst":"0.0.0.0/0","gw":"10.9.0.1"},{"dst":"10.8.0.0/16","gw":"10.9.0.3"}]`)

// ADD tells Kata of the tap, the guest's MAC and MTU, and what IPAM gave. CHECK
// compares it, DEL removes it without being told.
func TestDAN(t *testing.T) {
	t.Parallel()
	k := newKata(t)
	id := env{"CNI_CONTAINERID": "c1"}
	k.ipam.on("ADD", guestsNetwork)
	before := k.world()
	a := k.run("ADD", k.conf(conf{"mtu": 1400}), id)
	want := map[string]any{
		"name": "net1", "guest_mac": guestMAC,
		"device": map[string]any{"type": "host-tap", "tap_name": a.result().port().Name, "queue_num": 0.0, "queue_size": 0.0},
		"network_info": map[string]any{
			"interface": map[string]any{"ip_addresses": []any{"10.9.0.2/24"}, "mtu": 1400.0, "ntype": "tuntap", "flags": 0.0},
			"routes": []any{
				map[string]any{"dest": "", "gateway": "10.9.0.1", "source": "", "scope": 0.0, "flags": 0.0, "mtu": 0.0},
				map[string]any{"dest": "10.8.0.0/16", "gateway": "10.9.0.3", "source": "", "scope": 0.0, "flags": 0.0, "mtu": 0.0},
			},
			"neighbors": []any{},
		},
	}
	if diff := cmp.Diff([]any{want}, k.devices()); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	check := k.conf(conf{"mtu": 1400}, a.prev())
	k.run("CHECK", check, id).silent()
	k.drifts(check, id)
	for _, stripped := range []conf{{"dan": nil}, {"dan": nil, "bridge": nil, "mode": nil, "macTableManager": nil, "ipam": nil, "mac": nil}} {
		k.run("DEL", k.conf(stripped), id, env{"CNI_NETNS": ""}).silent()
		k.wantDevices(0, "after DEL")
		k.same(before)
		k.run("ADD", k.conf(), id).ok()
		k.wantDevices(1, "after ADD")
	}
	k.run("DEL", k.conf(), id).silent()
	k.run("DEL", k.conf(), id).silent()
}

// drifts changes the file behind the plugin's back, and puts it back.
func (k kata) drifts(check conf, id env) {
	k.t.Helper()
	text, err := os.ReadFile(k.path())
	if err != nil {
		k.t.Fatal(err)
	}
	for _, c := range []struct{ old, new, says string }{
		{guestMAC, "52:54:00:00:00:99", "DAN device: MAC is 52:54:00:00:00:99, want " + guestMAC},
		{"1400", "1500", "DAN device: MTU is 1500, want 1400"},
		{`"net1"`, `"net2"`, "DAN device: name is net2, want net1"},
		{"10.9.0.2/24", "10.9.0.7/24", "DAN device: addresses is 10.9.0.7/24, want 10.9.0.2/24"},
		{"10.9.0.3", "10.9.0.4", "DAN device: routes is default via 10.9.0.1, 10.8.0.0/16 via 10.9.0.4, want default via 10.9.0.1, 10.8.0.0/16 via 10.9.0.3"},
		{"host-tap", "vhost-user", "DAN device is missing"},
	} {
		writeText(k.t, k.path(), strings.Replace(string(text), c.old, c.new, 1))
		k.run("CHECK", check, id).fails(100, c.says)
	}
	writeText(k.t, k.path(), "{")
	k.run("CHECK", check, id).fails(anyCode, "c1.json")
	if err := os.Remove(k.path()); err != nil {
		k.t.Fatal(err)
	}
	k.run("CHECK", check, id).fails(100, "DAN device is missing")
	if ports := k.human(); !strings.Contains(ports, "DAN device is missing") {
		k.t.Errorf("ports does not say so: %s", ports)
	}
	writeText(k.t, k.path(), string(text))
	if ports := k.human(); !strings.Contains(ports, " ok\n") {
		k.t.Errorf("ports compares addresses: %s", ports)
	}
}

// human is what `tapbridge ports` says.
func (k kata) human() string {
	k.t.Helper()
	c := k.prepare("", "")
	c.command = append(c.command, "ports")
	clear(c.env)
	script := "mount -t tmpfs none /run; mkdir /run/kata-containers; mount --bind " + k.dir + " /run/kata-containers"
	return c.masked(script).run().stdout
}

func writeText(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Where /run is read-only, DEL succeeds unless there is something of ours in the folder.
func TestDANOnAReadOnlyFileSystem(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	script := "mount -t tmpfs none /run; mkdir -p /run/kata-containers/dans; mount -o remount,ro /run"
	n.unchanged(func() {
		n.call("ADD", n.conf()).ok()
		for range 2 {
			n.prepare("DEL", n.conf()).masked(script).run().silent()
		}
	})
	k := newKata(t)
	k.run("ADD", k.conf()).ok()
	k.prepare("DEL", k.conf()).masked(k.script()+"; mount -o remount,bind,ro /run/kata-containers").run().fails(anyCode, "c1.json", "read-only file system")
	k.run("DEL", k.conf()).silent()
	k.wantDevices(0, "after DEL")
}

// Networks of one sandbox that are added and deleted at once share one file.
func TestDANInParallel(t *testing.T) {
	t.Parallel()
	k := newKata(t)
	const many = 4
	all := func(verb string) {
		var wg sync.WaitGroup
		for i := range many {
			wg.Go(func() {
				c := k.conf(conf{"mac": fmt.Sprintf("52:54:00:00:01:%02x", i)})
				if a := k.run(verb, c, of("c1", fmt.Sprintf("net%d", i))); a.code != 0 {
					t.Errorf("%s: %s", verb, a.stdout)
				}
			})
		}
		wg.Wait()
	}
	all("ADD")
	k.wantDevices(many, "after the ADDs")
	all("DEL")
	k.wantDevices(0, "after the DELs")
}

// What fails after the file was written takes it back, and a file that cannot be
// added to fails ADD with nothing left.
func TestDANFailure(t *testing.T) {
	t.Parallel()
	k := newKata(t)
	id := env{"CNI_CONTAINERID": "c1"}
	k.unchanged(func() {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		c := k.prepare("ADD", k.conf(), id)
		c.masked("mount -t tmpfs none /run; mkdir /run/kata-containers; mount --bind " + k.dir + " /run/kata-containers").stdout = full
		if a := c.run(); a.code == 0 {
			a.fatalf("succeeded without an answer")
		}
		k.wantDevices(0, "after a failed ADD")
		writeText(t, k.path(), "{")
		k.run("ADD", k.conf(), id).fails(anyCode, "c1.json", "repair or remove it")
		k.run("DEL", k.conf(), id).silent()
		if text, err := os.ReadFile(k.path()); err != nil || string(text) != "{" {
			t.Errorf("somebody's file is %q, %v", text, err)
		}
	})
	if verbs := k.ipam.verbs(); verbs[len(verbs)-1] != "DEL" {
		t.Errorf("the delegate was left with %q", verbs)
	}
}

// GC removes what DEL would.
func TestDANOfGC(t *testing.T) {
	t.Parallel()
	k := newKata(t)
	for i, name := range []string{"net1", "net2"} {
		k.run("ADD", k.conf(conf{"mac": fmt.Sprintf("52:54:00:00:01:%02x", i)}), of("c1", name)).ok()
	}
	k.run("GC", k.conf(conf{validKey: valid("c1", "net2")}), noAttachment).silent()
	k.wantDevices(1, "after GC of one")
	k.run("GC", k.conf(conf{validKey: valid()}), noAttachment).silent()
	k.wantDevices(0, "after GC of all")
}
