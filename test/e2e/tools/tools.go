// Package tools fetches and builds the software that drives the plugin in the tests of package e2e: container runtimes, Kubernetes,
// Multus, QEMU. What the tests do with it is their business.
//
// Each is a program somebody released, at one pinned version: containerd 1.6 and runc from Debian's packages, the others built from
// their Go modules, each with the dependencies of its own go.mod in a directory beside this one. All ends up in the user's cache
// directory, where a second run finds it. Only QEMU and busybox are installed, as package guest does.
package tools

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tapbridge/tapbridge/test/guest"
)

// Tools are where the programs are.
type Tools struct {
	Debian string // the root of unpacked packages: containerd 1.6, runc, conmon, podman
	Bin    string // what was built: containerd 2, CRI-O, Kubernetes, Multus, reference plugins, the tests' peer
	Plugin string // tapbridge, of this tree
	Agent  string // tapbridge-agent, likewise
	Image  string // the archive that "make image" makes of it
	Guest  guest.Tools

	Prometheus string // the directory with prometheus and promtool
}

// packages are what comes from Debian. The libraries are podman's, which only loads the image into CRI-O's storage.
var packages = []string{
	"containerd", "runc", "conmon", "podman", "golang-github-containers-common", "golang-github-containers-image",
	"libassuan0", "libdevmapper1.02.1", "libgpgme11", "libsubid4",
}

// Get returns the tools, and makes those that are missing or out of date. dir is that of package e2e in the source tree. It says
// through log what it does and how long that took.
func Get(ctx context.Context, dir string, log func(string, ...any)) (t Tools, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return Tools{}, err
	}
	cache = filepath.Join(cache, "tapbridge")
	root := filepath.Join(dir, "..", "..")
	t = Tools{Bin: filepath.Join(cache, "e2e"), Plugin: filepath.Join(root, "bin", "tapbridge"), Image: filepath.Join(root, "bin", "tapbridge-image.tar")}
	t.Agent = filepath.Join(root, "bin", "tapbridge-agent")
	if err := os.MkdirAll(t.Bin, 0o755); err != nil {
		return Tools{}, err
	}
	b := builder{dir: dir, bin: t.Bin}
	stages := []stage{ // the longest first: two run at a time
		{"build etcd, kube-apiserver, kubelet and Multus", b.kubernetes},
		{"build tapbridge and its image", func(ctx context.Context) error { return run(ctx, root, nil, "make", "-s", "build", "image") }},
		{"build the reference plugins and the tests' peer", b.small},
		{"fetch containerd 1.6, runc, conmon and podman", func(ctx context.Context) (err error) {
			t.Debian, err = guest.Unpack(ctx, cache, "e2e-debian", packages, log)
			return err
		}},
		{"fetch Prometheus", func(ctx context.Context) error {
			dir, err := guest.Unpack(ctx, cache, "e2e-prometheus", []string{"prometheus"}, log)
			t.Prometheus = filepath.Join(dir, "usr", "bin")
			return err
		}},
		{"fetch QEMU, busybox and a kernel for guests", func(ctx context.Context) (err error) {
			t.Guest, err = guest.FindTools(ctx, cache, log)
			return err
		}},
		{"build containerd 2", b.containerd},
		{"build CRI-O", b.crio},
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2) // the linkers, and compilers at the end of a chain, leave a processor idle
	for _, s := range stages {
		group.Go(func() error { return s.run(ctx, log) })
	}
	return t, group.Wait()
}

type stage struct {
	what string
	do   func(context.Context) error
}

func (s stage) run(ctx context.Context, log func(string, ...any)) error {
	start := time.Now()
	err := s.do(ctx)
	log("%-50s %v", s.what, time.Since(start).Round(100*time.Millisecond))
	return err
}

func (t Tools) inDebian(path string) string { return filepath.Join(t.Debian, path) }

// Runc is the program that both runtimes make containers with.
func (t Tools) Runc() string { return t.inDebian("usr/sbin/runc") }

// Containerd16 is the directory with containerd 1.6, its shim and ctr.
func (t Tools) Containerd16() string { return t.inDebian("usr/bin") }

// Conmon is CRI-O's container monitor.
func (t Tools) Conmon() string { return t.inDebian("usr/bin/conmon") }

// Policy is the file that says which images CRI-O may run: all.
func (t Tools) Policy() string { return t.inDebian("etc/containers/policy.json") }

// Podman is the program that loads an image into CRI-O's storage.
func (t Tools) Podman() string { return t.inDebian("usr/bin/podman") }

// Libraries are the directories with podman's libraries, which are not installed, as LD_LIBRARY_PATH wants them.
func (t Tools) Libraries() string {
	return t.inDebian("usr/lib/x86_64-linux-gnu") + ":" + t.inDebian("lib/x86_64-linux-gnu")
}
