package doctor

import (
	"bytes"
	"fmt"
	"os"

	"github.com/tapbridge/tapbridge/internal/remedy"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// Tun says whether taps can be made.
func Tun() Finding {
	if err := tap.Available(); err != nil {
		return bad("node", remedy.Without(err), Remedy(err))
	}
	const anybody = 0o006
	if info, err := os.Stat(tap.Device); err == nil && info.Mode()&anybody != anybody {
		return note("node", fmt.Sprintf("%s has mode %04o: not every VMM may open it, such as one of uid %d, the default owner of a tap",
			tap.Device, info.Mode().Perm(), config.DefaultOwner), "chmod 0666 "+tap.Device+", unless every VMM runs as root")
	}
	return ok("node", tap.Device+" works")
}

// netfilterFile makes frames on every bridge of the namespace pass iptables
// (net/bridge/br_netfilter_hooks.c).
const netfilterFile = "/proc/sys/net/bridge/bridge-nf-call-iptables"

// netfilter is the trap that kube-proxy lays: it needs the setting, and a FORWARD
// policy of DROP then cuts guests off from each other.
func netfilter() Finding {
	content, err := os.ReadFile(netfilterFile)
	if err == nil && bytes.HasPrefix(content, []byte("1")) {
		return note("node", "frames between guests pass iptables (br_netfilter)",
			"iptables -S FORWARD: a policy of DROP cuts guests off; sysctl net.bridge.bridge-nf-call-iptables=0, if nothing else needs it")
	}
	return ok("node", "frames between guests do not pass iptables")
}
