package e2e

import (
	"os"
	"path/filepath"
)

// crio is the only kind of runtime that calls CHECK and GC.
var crio = kind{cni: "1.1.0", start: startCRIO}

func startCRIO(r *runtime) *daemon {
	config := r.configure("crio.conf", struct {
		blanks
		Pinns, Conmon, Policy string
	}{r.blanks(), filepath.Join(tool.Bin, "pinns"), tool.Conmon(), tool.Policy()})
	storage := r.path("runtime", "storage")
	if _, err := os.Stat(storage); err != nil {
		r.loadIntoStorage(storage)
	}
	return r.node.daemon("crio", r.command(filepath.Join(tool.Bin, "crio"), "--config", config, "--config-dir", ""))
}

// loadIntoStorage puts the image where CRI-O will find it: it has no program to load one, but shares podman's kind of storage.
func (r *runtime) loadIntoStorage(storage string) {
	r.t.Helper()
	policy, err := os.ReadFile(tool.Policy())
	must(r.t, err)
	r.write(policy, "home", ".config", "containers", "policy.json")
	cmd := r.command(tool.Podman(), "--root", storage, "--runroot", r.path("runtime", "run"), "--storage-driver", "overlay",
		"--cgroup-manager", "cgroupfs", "--events-backend", "none", "load", "-i", r.path("image.tar"))
	cmd.Env = append(os.Environ(), "HOME="+r.path("home"), "PATH="+filepath.Dir(tool.Conmon())+":"+os.Getenv("PATH"), "LD_LIBRARY_PATH="+tool.Libraries())
	_, err = output(cmd)
	must(r.t, err)
}
