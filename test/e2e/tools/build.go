package tools

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// builder builds the modules below dir.
type builder struct{ dir, bin string }

const kubernetesVersion = "v1.36.3" // as in k8s/go.mod: a build from the module does not know it

func (b builder) kubernetes(ctx context.Context) error {
	version := "-X k8s.io/component-base/version.gitVersion=" + kubernetesVersion
	return b.build(ctx, "k8s", nil, "-ldflags=-s -w "+version, ".", "tool")
}

func (b builder) containerd(ctx context.Context) error {
	return b.build(ctx, "containerd", nil, "-ldflags=-s -w", "tool")
}

// small builds what the module of all tests and package e2e have the dependencies of.
func (b builder) small(ctx context.Context) error {
	const plugins = "github.com/containernetworking/plugins/plugins/"
	err := b.build(ctx, "..", nil, "-ldflags=-s -w", plugins+"main/loopback", plugins+"main/ptp", plugins+"ipam/host-local", plugins+"ipam/static")
	if err != nil {
		return err
	}
	return b.build(ctx, ".", nil, "-ldflags=-s -w", "./peer")
}

// crioTags leave out what needs libraries of C.
const crioTags = "containers_image_ostree_stub containers_image_openpgp exclude_graphdriver_btrfs btrfs_noversion exclude_graphdriver_devicemapper"

// crio also builds pinns, the program in C with which CRI-O makes namespaces, from the source in its module.
func (b builder) crio(ctx context.Context) error {
	if err := b.build(ctx, "crio", []string{"CGO_ENABLED=1"}, "-tags="+crioTags, "-ldflags=-s -w", "tool"); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cri-o/cri-o")
	cmd.Dir = filepath.Join(b.dir, "crio")
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("find the source of pinns: %w", err)
	}
	sources, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "pinns", "src", "*.c"))
	if err != nil {
		return err
	}
	args := []string{"-Os", `-DVERSION="tapbridge-e2e"`, "-o", filepath.Join(b.bin, "pinns")}
	return run(ctx, b.dir, nil, "gcc", append(args, sources...)...)
}

// build runs go build in a module below dir.
func (b builder) build(ctx context.Context, module string, env []string, args ...string) error {
	args = append([]string{"build", "-buildvcs=false", "-o", b.bin + string(filepath.Separator)}, args...)
	return run(ctx, filepath.Join(b.dir, module), env, "go", args...)
}

func run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%q in %q: %w\n%s", cmd.Args, dir, err, out)
	}
	return nil
}
