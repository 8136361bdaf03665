package e2e

import (
	"os"
	"path/filepath"
)

// containerd16 is Debian 12's. It refuses results of CNI 1.1.
var containerd16 = containerd("1.0.0", "containerd-1.6.toml", func() string { return tool.Containerd16() })

var containerd2 = containerd("1.1.0", "containerd-2.toml", func() string { return tool.Bin })

// containerd is a kind of runtime whose programs are in a directory that is known once the tools are there.
func containerd(cni, configuration string, programs func() string) kind {
	return kind{
		cni: cni,
		start: func(r *runtime) *daemon {
			config := r.configure(configuration, r.blanks())
			cmd := r.command(filepath.Join(programs(), "containerd"), "--config", config)
			cmd.Env = append(os.Environ(), "PATH="+programs()+":"+filepath.Dir(tool.Runc())+":"+os.Getenv("PATH"))
			return r.node.daemon("containerd", cmd)
		},
		load: func(r *runtime) {
			r.run(filepath.Join(programs(), "ctr"), "-a", r.socket(), "-n", "k8s.io", "images", "import", r.path("image.tar"))
		},
	}
}
