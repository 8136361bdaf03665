package dan_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/pkg/dan"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

const sandbox = "4f5c"

var (
	first = dan.NIC{
		Sandbox: sandbox, Tap: "tb0bca465808d7", Name: "eth0", MAC: mac.Addr{0x52, 0x54, 0, 0x12, 0x34, 0x56}, MTU: 1400,
		Addresses: []string{"10.1.0.5/24", "fd00::5/64"},
		Routes: []dan.Route{
			{Gateway: "10.1.0.1"},
			{Dest: "10.2.0.0/16", Gateway: "10.1.0.2", MTU: 1300},
			{Dest: "10.3.0.0/16", Scope: 253},
		},
	}
	second = dan.NIC{Sandbox: sandbox, Tap: "tb0123456789ab", Name: "eth1", MAC: mac.Addr{0x52, 0x54, 0, 0x12, 0x34, 0x57}, MTU: 1500, Addresses: []string{}}
)

// folder is one that is not there yet, below one that is not there yet.
func folder(t *testing.T) dan.Folder {
	return dan.Folder(filepath.Join(t.TempDir(), "kata-containers", "dans"))
}

func path(f dan.Folder) string { return filepath.Join(string(f), sandbox+".json") }

func write(t *testing.T, f dan.Folder, nics ...dan.NIC) {
	t.Helper()
	for _, n := range nics {
		if err := f.Write(n); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t *testing.T, f dan.Folder, n dan.NIC) {
	t.Helper()
	if err := f.Remove(n.Sandbox, n.Tap); err != nil {
		t.Error(err)
	}
}

// put makes a file as somebody else would.
func put(t *testing.T, f dan.Folder, text string) {
	t.Helper()
	if err := os.MkdirAll(string(f), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path(f), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, f dan.Folder) string {
	t.Helper()
	text, err := os.ReadFile(path(f))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wantFiles demands that the folder holds these files and no others.
func wantFiles(t *testing.T, f dan.Folder, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(string(f))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// The file is what was written by hand after the structs of runtime-rs, for root
// alone, and Read understands it.
func TestFileIsWhatKataReads(t *testing.T) {
	f := folder(t)
	write(t, f, first, second)
	want, err := os.ReadFile("testdata/runtime-rs.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), content(t, f)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if info, err := os.Stat(path(f)); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, n := range []dan.NIC{first, second} {
		got, err := f.Read(sandbox, n.Tap)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&n, got); diff != "" {
			t.Errorf("read back (-want +got):\n%s", diff)
		}
	}
	wantFiles(t, f, sandbox+".json")
}

func TestRemoveTakesItsOwn(t *testing.T) {
	f := folder(t)
	remove(t, f, first) // no folder
	write(t, f, first, second)
	remove(t, f, first)
	if got, err := f.Read(sandbox, first.Tap); got != nil || err != nil {
		t.Errorf("after Remove there is %+v, %v", got, err)
	}
	if got, err := f.Read(sandbox, second.Tap); got == nil || err != nil {
		t.Errorf("Remove took the other one along: %v", err)
	}
	remove(t, f, first) // again
	remove(t, f, second)
	wantFiles(t, f)
	remove(t, f, second) // no file
	if err := f.Remove(strings.Repeat("c", 300), first.Tap); err != nil {
		t.Errorf("an id that no file can be named after: %v", err)
	}
}

// A second description of a tap replaces the first: a killed DEL may have left it.
func TestWriteAgainReplaces(t *testing.T) {
	f := folder(t)
	changed := first
	changed.MTU, changed.Name = 1300, "eth7"
	write(t, f, first, changed)
	if got, err := f.Read(sandbox, first.Tap); err != nil || got.MTU != 1300 {
		t.Errorf("there is %+v, %v", got, err)
	}
	remove(t, f, first)
	wantFiles(t, f)
}

// What others have written stays, keys that nobody knows as well.
func TestForeignDevicesStay(t *testing.T) {
	for name, text := range map[string]string{
		"vhost-user": `{"netns":null,"devices":[{"name":"eth5","device":{"type":"vhost-user","path":"/x"},"new":[1]}],"later":{"a":1}}`,
		"another's":  `{"devices":[{"name":"eth5","device":{"type":"host-tap","tap_name":"tap5"}}]}`,
		"no devices": `{"devices":[]}`,
		"other type": `{"devices":[{"name":"eth5","device":{"type":"vhost-user","tap_name":"` + first.Tap + `"}}]}`,
		"nonsense":   `{"devices":[7,null,"x"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			f := folder(t)
			put(t, f, text)
			remove(t, f, first)
			if got := content(t, f); got != text {
				t.Errorf("Remove without a device of ours has changed the file to %s", got)
			}
			write(t, f, first)
			if got, err := f.Read(sandbox, first.Tap); err != nil || got == nil {
				t.Errorf("not added: %v", err)
			}
			remove(t, f, first)
			if name == "no devices" {
				wantFiles(t, f)
				return
			}
			var want, got any
			decode(t, text, &want)
			decode(t, content(t, f), &got)
			if want, _ := want.(map[string]any); want["netns"] == nil {
				want["netns"] = nil
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("what others have written (-before +after):\n%s", diff)
			}
		})
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"empty":          {"", "repair or remove it"},
		"not JSON":       {"not JSON", "repair or remove it"},
		"list":           {"[]", "repair or remove it"},
		"devices":        {`{"devices":{}}`, "repair or remove it"},
		"in a namespace": {`{"netns":"/run/netns/x","devices":[]}`, `"/run/netns/x"`},
		"name is taken":  {`{"devices":[{"name":"eth0","device":{"type":"vfio"}}]}`, `another device of the name "eth0"`},
	} {
		t.Run(name, func(t *testing.T) {
			f := folder(t)
			put(t, f, c.text)
			err := f.Write(first)
			if !errors.Is(err, dan.ErrFile) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path(f)) {
				t.Errorf("Write: %v", err)
			}
			remove(t, f, first)
			if got := content(t, f); got != c.text {
				t.Errorf("the file has become %s", got)
			}
			wantFiles(t, f, sandbox+".json")
		})
	}
}

// A file of ours that somebody has spoilt is not left behind in silence.
func TestRemoveFromASpoiltFile(t *testing.T) {
	f := folder(t)
	write(t, f, first)
	spoilt := content(t, f) + "}"
	put(t, f, spoilt)
	if err := f.Remove(sandbox, first.Tap); !errors.Is(err, dan.ErrFile) || !strings.Contains(err.Error(), path(f)) {
		t.Errorf("Remove: %v", err)
	}
	if _, err := f.Read(sandbox, first.Tap); !errors.Is(err, dan.ErrFile) {
		t.Errorf("Read: %v", err)
	}
	if got := content(t, f); got != spoilt {
		t.Errorf("the file has become %s", got)
	}
}

// Nothing is read or written through a symbolic link, nor is the link touched.
func TestSymbolicLinks(t *testing.T) {
	f := folder(t)
	write(t, f, second)
	target := filepath.Join(t.TempDir(), "target")
	if err := os.Rename(path(f), target); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path(f)); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(first); !errors.Is(err, dan.ErrFile) {
		t.Errorf("Write: %v", err)
	}
	if n, err := f.Read(sandbox, second.Tap); n != nil || err != nil {
		t.Errorf("Read: %+v, %v", n, err)
	}
	remove(t, f, second)
	if now, err := os.Readlink(path(f)); err != nil || now != target {
		t.Errorf("the link is %q, %v", now, err)
	}
	if after, err := os.ReadFile(target); err != nil || string(after) != string(before) {
		t.Errorf("its target is %s, %v", after, err)
	}
	linked := dan.Folder(filepath.Join(t.TempDir(), "dans"))
	if err := os.Symlink(string(f), string(linked)); err != nil {
		t.Fatal(err)
	}
	if err := linked.Write(first); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("Write into a linked folder: %v", err)
	}
}

// A draft that a killed writer has left, a link even, is in nobody's way.
func TestDraftLeftBehind(t *testing.T) {
	f := folder(t)
	target := filepath.Join(t.TempDir(), "target")
	for range 2 {
		write(t, f, first)
		if err := os.Symlink(target, filepath.Join(string(f), "."+sandbox+".tapbridge")); err != nil {
			t.Fatal(err)
		}
		write(t, f, second)
		remove(t, f, first)
		if err := os.WriteFile(filepath.Join(string(f), "."+sandbox+".tapbridge"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		remove(t, f, second)
		wantFiles(t, f)
	}
	if _, err := os.Lstat(target); err == nil {
		t.Error("the draft was written through a link")
	}
}

// Attachments of one sandbox that come and go at once do not lose one another.
func TestParallel(t *testing.T) {
	f := folder(t)
	const many = 16
	nic := func(i int) dan.NIC {
		n := second
		n.Name, n.Tap = fmt.Sprintf("net%d", i), fmt.Sprintf("tb%012d", i)
		return n
	}
	each := func(do func(i int) error) {
		var wg sync.WaitGroup
		for i := range many {
			wg.Go(func() {
				if err := do(i); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	each(func(i int) error { return f.Write(nic(i)) })
	for i := range many {
		if n, err := f.Read(sandbox, nic(i).Tap); n == nil || err != nil {
			t.Errorf("%s is lost: %v", nic(i).Name, err)
		}
	}
	each(func(i int) error { return f.Remove(sandbox, nic(i).Tap) })
	wantFiles(t, f)
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}
