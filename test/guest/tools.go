package guest

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Tools are the files that [QEMU] needs.
type Tools struct {
	QEMU    string // qemu-system-x86_64
	Kernel  string // a Linux for virtual machines, with serial console, devtmpfs and initramfs built in
	Modules string // the directory its modules are under
	Busybox string // statically linked
}

// FindTools finds the tools, and fetches what is missing as Debian packages: the programs are installed, the kernel is only unpacked
// into cacheDir. It needs root then, and says each step through log.
func FindTools(ctx context.Context, cacheDir string, log func(string, ...any)) (Tools, error) {
	if runtime.GOARCH != "amd64" {
		return Tools{}, fmt.Errorf("the QEMU guest is an amd64 machine with this machine's busybox, which is for %q", runtime.GOARCH)
	}
	a := &apt{log: log}
	if err := a.installPrograms(ctx); err != nil {
		return Tools{}, err
	}
	dir, err := a.unpack(ctx, cacheDir, "guest-kernel", kernelPackage)
	if err != nil {
		return Tools{}, err
	}
	return toolsIn(dir)
}

// Unpack returns the directory cacheDir/name with the files of Debian packages, which it downloads when the directory is not there.
// It installs nothing.
func Unpack(ctx context.Context, cacheDir, name string, packages []string, log func(string, ...any)) (string, error) {
	a := &apt{log: log}
	return a.unpack(ctx, cacheDir, name, func(context.Context) ([]string, error) { return packages, nil })
}

// toolsIn names the tools, given the directory with the unpacked kernel package.
func toolsIn(dir string) (t Tools, err error) {
	t.Modules = filepath.Join(dir, "lib", "modules")
	if t.Kernel, err = onlyMatch(filepath.Join(dir, "boot", "vmlinuz-*")); err != nil {
		return Tools{}, err
	}
	if t.QEMU, err = exec.LookPath(qemuProgram); err != nil {
		return Tools{}, err
	}
	t.Busybox, err = exec.LookPath("busybox")
	return t, err
}

const qemuProgram = "qemu-system-x86_64"

func onlyMatch(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("want one file %q, found %d", pattern, len(found))
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// apt fetches Debian packages.
type apt struct {
	log     func(string, ...any)
	updated bool
}

func (a *apt) installPrograms(ctx context.Context) error {
	var missing []string
	if _, err := exec.LookPath(qemuProgram); err != nil {
		missing = append(missing, "qemu-system-x86")
	}
	if !staticBusybox() {
		missing = append(missing, "busybox-static")
	}
	if missing == nil {
		return nil
	}
	if err := a.update(ctx); err != nil {
		return err
	}
	a.log("install %s", strings.Join(missing, " and "))
	return a.get(ctx, "", slices.Concat([]string{"install", "-y", "--no-install-recommends"}, missing)...)
}

// staticBusybox tells Debian's busybox-static from its busybox, which needs a libc that the guest has not.
func staticBusybox() bool {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return false
	}
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// unpack returns a directory with the packages' files. It appears under its name only when it is complete, so its being there is
// the mark that this was done.
func (a *apt) unpack(ctx context.Context, cacheDir, name string, packages func(context.Context) ([]string, error)) (string, error) {
	done := filepath.Join(cacheDir, name)
	if _, err := os.Stat(done); err == nil {
		return done, nil
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(cacheDir, name+"-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := a.fetch(ctx, tmp, packages); err != nil {
		return "", err
	}
	err = os.Rename(filepath.Join(tmp, "root"), done)
	if errors.Is(err, os.ErrExist) { // somebody else was faster
		err = nil
	}
	return done, err
}

// fetch downloads packages into dir and unpacks them into dir/root.
func (a *apt) fetch(ctx context.Context, dir string, packages func(context.Context) ([]string, error)) error {
	if err := a.update(ctx); err != nil {
		return err
	}
	names, err := packages(ctx)
	if err != nil {
		return err
	}
	a.log("download %s", strings.Join(names, ", "))
	if err := a.get(ctx, dir, append([]string{"download"}, names...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range files {
		a.log("unpack %s", filepath.Base(deb))
		if _, err := output(ctx, "", "dpkg-deb", "-x", deb, filepath.Join(dir, "root")); err != nil {
			return err
		}
	}
	return nil
}

// kernelPackage asks which package the metapackage for cloud kernels stands for today.
func kernelPackage(ctx context.Context) ([]string, error) {
	const meta = "linux-image-cloud-amd64"
	out, err := output(ctx, "", "apt-cache", "depends", meta)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-")
		if ok {
			return []string{"linux-image-" + name}, nil
		}
	}
	return nil, fmt.Errorf("apt knows no kernel package behind %q", meta)
}

// update refreshes the package lists, once: a list that is too old names packages the archive no longer has.
func (a *apt) update(ctx context.Context) error {
	if a.updated {
		return nil
	}
	a.log("update the package lists")
	a.updated = true
	return a.get(ctx, "", "update")
}

func (a *apt) get(ctx context.Context, dir string, args ...string) error {
	// As root, not as user _apt: that one may not write to dir. The dpkg lock may be held for a while by somebody else.
	options := []string{"-qq", "-o", "APT::Sandbox::User=root", "-o", "DPkg::Lock::Timeout=120"}
	_, err := output(ctx, dir, "apt-get", slices.Concat(options, args)...)
	return err
}

// output runs a program in dir; what it said is part of the error.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
