package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/tapbridge/tapbridge/internal/remedy"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// feature is something that a configuration can ask for, and that depends on the
// kernel.
type feature struct {
	name   string
	needed bool   // by everybody
	remedy string // where the kernel lacks it
	ask    func(*port.Attachment)
}

const (
	modulesOf       = "load the kernel modules "
	kernelWithVLANs = "a kernel with " + bridge.VLANOption
)

// features are tried from the plainest on, so that the first that fails tells most.
var features = []feature{
	{"mode veth", true, modulesOf + "bridge and veth", func(a *port.Attachment) {
		a.Mode, a.Access = port.Veth, tap.Access{Owner: tap.Anyone, Group: tap.Anyone}
	}},
	{"mode host-tap", true, modulesOf + "bridge and tun", func(a *port.Attachment) { a.Mode = port.HostTap }},
	{"mode tap", true, modulesOf + "sch_ingress, cls_u32 and act_mirred", func(*port.Attachment) {}},
	{"macTableManager libvirt", false, "Linux 4.20 or later", func(a *port.Attachment) { a.Table = port.Sticky }},
	{"macspoofchk", false, "Linux 5.18 or later", func(a *port.Attachment) { a.Table, a.Locked = port.Sticky, true }},
	{"ipSpoofChk", false, modulesOf + guard.Modules, func(a *port.Attachment) { a.Guarded = true }},
	{"portIsolation", false, "Linux 4.18 or later", func(a *port.Attachment) { a.Isolated = true }},
	{"vlan or vlanTrunk", false, kernelWithVLANs, func(a *port.Attachment) { a.VLANs = "42PU" }},
	{"bandwidth", false, modulesOf + "ifb, sch_tbf, sch_ingress, cls_u32 and act_mirred", func(a *port.Attachment) {
		a.ToGuest = shape.Limit{Rate: 1e6, Burst: 1e5}
		a.FromGuest = a.ToGuest
	}},
}

// Kernel tries every feature: it attaches with it and detaches again, in network
// namespaces that nobody else sees.
func Kernel() ([]Finding, error) {
	site, err := attach.OpenScratch()
	if err != nil {
		return nil, err
	}
	defer site.Close()
	var found []Finding
	var way *redirect.Pair
	for i, f := range features {
		got, err := f.try(site, fmt.Sprint("trial", i))
		if remedy := ofNode(err); f.needed && remedy != "" { // it keeps the others from working as well
			found = append(found, failed(f.name, err, remedy))
			break
		}
		if err != nil {
			found = append(found, f.missing(err))
			continue
		}
		found = append(found, ok("kernel", f.name+" works"))
		way = cmp.Or(got.Redirect, way)
	}
	return append(found, wayOfFrames(way)...), nil
}

// wayOfFrames says how mode tap redirects frames: it works either way.
func wayOfFrames(way *redirect.Pair) []Finding {
	switch {
	case way == nil:
		return nil
	case *way == redirect.Both:
		return []Finding{ok("kernel", fmt.Sprintf("mode tap redirects frames by %s", *way))}
	}
	return []Finding{note("kernel", fmt.Sprintf("mode tap redirects frames by %s, where %s is faster", *way, redirect.Both),
		"Linux 5.10 or later with the kernel module cls_bpf, and bpf(2) permitted to the plugin")}
}

func (f feature) missing(err error) Finding {
	remedy := f.remedy
	if !lacking(err) {
		remedy = Remedy(err)
	}
	found := failed(f.name, err, remedy)
	if !f.needed {
		found.Level = Note
		found.Remedy += ", if it is wanted"
	}
	return found
}

// failed names the trial: the devices in the error are not the user's.
func failed(feature string, err error, whatToDo string) Finding {
	why := strings.ReplaceAll(remedy.Without(err), "\n", "; ")
	return bad("kernel", fmt.Sprintf("%s does not work in a trial: %s", feature, why), whatToDo)
}

// try returns what was made for the time of the trial.
func (f feature) try(site *attach.Site, onBridge string) (port.Port, error) {
	a := port.Attachment{
		ID:      port.ID{ContainerID: "doctor", IfName: "net1"},
		Network: "doctor", Bridge: onBridge, Mode: port.Tap, Table: port.Kernel,
		Guest: mac.Stable("doctor", f.name), MTU: bridge.DefaultMTU, PortMTU: bridge.DefaultMTU,
		Access: tap.Access{Owner: config.DefaultOwner, Group: config.DefaultGroup},
	}
	f.ask(&a)
	if err := site.Apply(a, bridge.Bridge{Name: a.Bridge, MTU: a.PortMTU, VLANAware: a.VLANs != ""}); err != nil {
		return port.Port{}, err
	}
	got, err := site.Observe(a.Want())
	return got, errors.Join(err, site.Remove(a.ID))
}
