package deploy

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// image is what an OCI archive has of its only image.
type image struct {
	Ref    string // its name
	Digest string
	Config struct {
		Architecture string `json:"architecture"`
		Config       struct {
			Entrypoint, Cmd []string
		} `json:"config"`
	}
	Files map[string][]byte
}

// makeImage makes the image for an architecture where no network is: nothing may be pulled.
func makeImage(t *testing.T, arch, archive string) *image {
	t.Helper()
	if out, err := exec.Command("make", "-C", root, "buildah").CombinedOutput(); err != nil { // may need the network
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command("unshare", "--net", "make", "-C", root, "image", "ARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", cmd.Args, err, out)
	}
	return readImage(t, filepath.Join(root, "bin", archive))
}

type descriptor struct {
	Digest      string
	Annotations map[string]string
}

func readImage(t *testing.T, archive string) *image {
	t.Helper()
	text, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	blobs := untar(t, text)
	blob := func(d descriptor) []byte { return blobs["blobs/"+strings.Replace(d.Digest, ":", "/", 1)] }
	var index struct{ Manifests []descriptor }
	parse(t, blobs["index.json"], &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%s has %d images", archive, len(index.Manifests))
	}
	i := &image{Ref: index.Manifests[0].Annotations["org.opencontainers.image.ref.name"], Digest: index.Manifests[0].Digest}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	parse(t, blob(index.Manifests[0]), &manifest)
	parse(t, blob(manifest.Config), &i.Config)
	if len(manifest.Layers) != 1 {
		t.Fatalf("%s has %d layers", archive, len(manifest.Layers))
	}
	i.Files = untar(t, blob(manifest.Layers[0]))
	return i
}

func parse(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

func untar(t *testing.T, text []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name] = content; strings.HasPrefix(header.Name, "tapbridge") && header.FileInfo().Mode() != 0o755 {
			t.Errorf("%s has mode %o", header.Name, header.Mode)
		}
	}
}

// The image has the two programs and nothing else, for the machine that was asked for, and installs it by default.
func TestImage(t *testing.T) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for arch, machine := range machines {
		t.Run(arch, func(t *testing.T) {
			archive := "tapbridge-image.tar"
			if arch != runtime.GOARCH {
				archive = "tapbridge-image-" + arch + ".tar"
			}
			i := makeImage(t, arch, archive)
			if i.Config.Architecture != arch {
				t.Errorf("its architecture is %q", i.Config.Architecture)
			}
			if len(i.Files) != 2 {
				t.Fatalf("it has %d files", len(i.Files))
			}
			for _, name := range []string{"tapbridge", "tapbridge-agent"} {
				requireStatic(t, name, i.Files[name], machine)
			}
			if again := makeImage(t, arch, archive); again.Digest != i.Digest {
				t.Errorf("made again it is another: %s, then %s", i.Digest, again.Digest)
			}
		})
	}
}

func requireStatic(t *testing.T, name string, content []byte, machine elf.Machine) {
	t.Helper()
	program, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if program.Machine != machine {
		t.Errorf("%s is for %v", name, program.Machine)
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is not static: it has %v", name, p.Type)
		}
	}
}

// The DaemonSet's container is the image that `make image` makes, its command is the image's, and that installs where the folder of
// the node is mounted.
func TestDaemonSetRunsTheImage(t *testing.T) {
	i := makeImage(t, runtime.GOARCH, "tapbridge-image.tar")
	container := read(t).daemonSet.Spec.Template.Spec.Containers[0]
	if container.Image != i.Ref {
		t.Errorf("the container's image is %q, that of `make image` %q", container.Image, i.Ref)
	}
	if len(container.Command)+len(container.Args) != 0 {
		t.Errorf("the container has a command of its own: %q %q", container.Command, container.Args)
	}
	if len(container.VolumeMounts) != 1 {
		t.Fatalf("%d mounts", len(container.VolumeMounts))
	}
	want := []string{"/tapbridge", "install", "-stay", container.VolumeMounts[0].MountPath}
	if diff := cmp.Diff(want, append(i.Config.Config.Entrypoint, i.Config.Config.Cmd...)); diff != "" {
		t.Errorf("the image's command (-want +got):\n%s", diff)
	}
}
