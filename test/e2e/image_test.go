package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
)

// image is the name of the only image: it is loaded into each runtime, never pulled.
const image = "e2e.test/peer:1"

// saved is the image as "docker save" writes it. Its root has peer as its program, and mount points for this machine's /usr, which is
// how QEMU gets into a pod.
func saved(t *testing.T) []byte {
	t.Helper()
	layer := rootFS(t)
	diff := fmt.Sprintf("%x", sha256.Sum256(layer))
	config := asJSON(t, conf{
		"architecture": goruntime.GOARCH, "os": "linux",
		"config": conf{"Entrypoint": []string{"/peer"}, "WorkingDir": "/"},
		"rootfs": conf{"type": "layers", "diff_ids": []string{"sha256:" + diff}},
	})
	id := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest := asJSON(t, []conf{{"Config": id, "RepoTags": []string{image}, "Layers": []string{diff + ".tar"}}})
	a := newArchive(t)
	a.file(id, 0o644, config)
	a.file(diff+".tar", 0o644, layer)
	a.file("manifest.json", 0o644, manifest)
	return a.close()
}

func rootFS(t *testing.T) []byte {
	t.Helper()
	peer, err := os.ReadFile(filepath.Join(tool.Bin, "peer"))
	must(t, err)
	a := newArchive(t)
	for dir := range strings.FieldsSeq("etc proc sys dev tmp usr vm") {
		a.add(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	for dir := range strings.FieldsSeq("bin lib lib64 sbin") {
		a.add(&tar.Header{Name: dir, Typeflag: tar.TypeSymlink, Linkname: "usr/" + dir, Mode: 0o777}, nil)
	}
	a.file("peer", 0o755, peer)
	a.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/peer\n"))
	return a.close()
}

type archive struct {
	t      *testing.T
	buffer bytes.Buffer
	*tar.Writer
}

func newArchive(t *testing.T) *archive {
	a := &archive{t: t}
	a.Writer = tar.NewWriter(&a.buffer)
	return a
}

func (a *archive) file(name string, mode int64, content []byte) {
	a.t.Helper()
	a.add(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}, content)
}

func (a *archive) add(header *tar.Header, content []byte) {
	a.t.Helper()
	must(a.t, a.WriteHeader(header))
	_, err := a.Write(content)
	must(a.t, err)
}

func (a *archive) close() []byte {
	a.t.Helper()
	must(a.t, a.Close())
	return a.buffer.Bytes()
}
