package guest

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// What the guest runs, see the comments there.
var (
	//go:embed init.sh
	initScript []byte
	//go:embed serve.sh
	serveScript []byte
)

// GuestInitramfs is a whole guest system: busybox, the modules of its network card, and our scripts.
func GuestInitramfs(t Tools) ([]byte, error) {
	a, err := NewInitramfs(t, initScript, "virtio_pci", "virtio_net")
	if err != nil {
		return nil, err
	}
	a.Add("bin/serve", 0o755, serveScript)
	return a.Close(), nil
}

// Initramfs is the file system that a guest's kernel starts with. It is a cpio archive in the "newc" format, the one a kernel
// unpacks (Documentation/driver-api/early-userspace/buffer-format.rst in Linux).
type Initramfs struct {
	buf    bytes.Buffer
	inodes int
	dirs   map[string]bool
}

// NewInitramfs returns a file system with what every guest needs: the init script, busybox to run it, empty directories to mount
// on, and under /modules the named modules and those they depend on, so that the order of their names is the order to load them.
func NewInitramfs(t Tools, init []byte, moduleNames ...string) (*Initramfs, error) {
	busybox, err := os.ReadFile(t.Busybox)
	if err != nil {
		return nil, err
	}
	drivers, err := modules(t.Modules, moduleNames...)
	if err != nil {
		return nil, err
	}
	a := &Initramfs{dirs: map[string]bool{".": true}}
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp"} {
		a.mkdir(dir)
	}
	a.Add("init", 0o755, init)
	a.Add("bin/busybox", 0o755, busybox)
	for i, m := range drivers {
		a.Add(fmt.Sprintf("modules/%02d-%s.ko", i, m.name), 0o644, m.content)
	}
	return a, nil
}

// Add adds a file, and the directories above it. The name is relative to the root.
func (a *Initramfs) Add(name string, perm int, content []byte) {
	a.mkdir(path.Dir(name))
	a.append(name, modeFile|perm, content)
}

// Close returns the archive. Nothing can be added to it any more.
func (a *Initramfs) Close() []byte {
	a.append("TRAILER!!!", 0, nil)
	return a.buf.Bytes()
}

// mkdir adds a directory and those above it: the kernel unpacks no file whose directory is not there yet.
func (a *Initramfs) mkdir(name string) {
	if a.dirs[name] {
		return
	}
	a.dirs[name] = true
	a.mkdir(path.Dir(name))
	a.append(name, modeDir|0o755, nil)
}

const (
	modeDir  = 0o040000
	modeFile = 0o100000
)

func (a *Initramfs) append(name string, mode int, content []byte) {
	a.inodes++
	const uid, gid, nlink, mtime, major, minor, rmajor, rminor, check = 0, 0, 1, 0, 0, 0, 0, 0, 0
	fmt.Fprintf(&a.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", a.inodes, mode, uid, gid, nlink, mtime,
		len(content), major, minor, rmajor, rminor, len(name)+1, check, name)
	a.pad()
	a.buf.Write(content)
	a.pad()
}

func (a *Initramfs) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

// module is a kernel module.
type module struct {
	name    string
	content []byte
}

// modules returns the named modules from the files under dir, each after the modules it depends on. It asks the modules themselves:
// modules.dep is made by depmod when a kernel is installed, and this one is only unpacked.
func modules(dir string, names ...string) ([]module, error) {
	files, err := moduleFiles(dir)
	if err != nil {
		return nil, err
	}
	l := loader{files: files, seen: map[string]bool{}}
	for _, name := range names {
		if err := l.load(name); err != nil {
			return nil, err
		}
	}
	return l.order, nil
}

func moduleFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			files[moduleName(name)] = path
		}
		return err
	})
	return files, err
}

// moduleName is the name the kernel uses: file names and dependencies may have either sign.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

type loader struct {
	files map[string]string
	seen  map[string]bool
	order []module
}

func (l *loader) load(name string) error {
	if l.seen[name] {
		return nil
	}
	l.seen[name] = true
	path, ok := l.files[name]
	if !ok {
		return fmt.Errorf("kernel module %q: %w", name, fs.ErrNotExist)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	depends, err := dependencies(content)
	if err != nil {
		return fmt.Errorf("kernel module %q: %w", path, err)
	}
	for _, d := range depends {
		if err := l.load(d); err != nil {
			return err
		}
	}
	l.order = append(l.order, module{name, content})
	return nil
}

// dependencies reads the names after depends= in a module's .modinfo section.
func dependencies(content []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no section %q", ".modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(moduleName(list), ","), nil
		}
	}
	return nil, nil
}
