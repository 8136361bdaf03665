package port

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/dan"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/guard"
	"github.com/tapbridge/tapbridge/pkg/redirect"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// ErrDrift says that a port is not as it should be.
var ErrDrift = errors.New("the port is not as it should be")

// Drift lists every difference between a wanted port and the one that is there.
type Drift struct {
	Port        string
	Differences Differences
}

func (d *Drift) Error() string {
	own := fmt.Sprintf("port %q", d.Port)
	differences := strings.ReplaceAll(d.Differences.String(), own+": ", "")
	if strings.HasPrefix(differences, own) { // is missing
		return differences
	}
	return own + ": " + differences
}

// Is makes errors.Is(err, ErrDrift) hold.
func (d *Drift) Is(target error) bool { return target == ErrDrift }

// Diff compares all of want with what was observed; nil when they agree,
// otherwise a *Drift. Of the two states of a port with Follow it takes the one that
// got is in.
func Diff(want, got Port) error {
	want = want.Like(got)
	d := &Drift{Port: want.Name}
	if want.Idle != nil { // whose name is the one that everybody knows the port by
		d.Port = want.Idle.Name
	}
	d.device("port", want.End, got.End)
	if want.End != nil && got.End != nil {
		d.membership(want.Bridge, got.Bridge)
		d.entries(want.FDB, got.FDB)
	}
	d.device("pod interface", want.Pod, got.Pod)
	d.device("tap", want.Tap, got.Tap)
	if tapThere(want, got) {
		d.access(want.Access, got.Access)
	}
	if got.Tap != nil && got.Pod != nil {
		d.redirect(want.Redirect, got.Redirect)
	}
	d.promoted(want, got)
	d.device("ifb", want.IFB, got.IFB)
	if got.End != nil && got.IFB != nil {
		compare(d, the("redirect from port to ifb"), want.Diverted, got.Diverted)
	}
	if got.End != nil {
		d.guard(want.Guard, got.Guard)
	}
	d.dan(want.DAN, got.DAN)
	if len(d.Differences) == 0 {
		return nil
	}
	return d
}

// tapThere reports whether the device is there that should be the tap.
func tapThere(want, got Port) bool {
	if want.Tap != nil {
		return got.Tap != nil
	}
	return got.End != nil
}

// compare notes a difference in one value.
func compare[T comparable](d *Drift, what part, want, got T) {
	if want != got {
		d.add(what, "is %v, want %v", word(got), word(want))
	}
}

func word(v any) any {
	switch v {
	case true:
		return "on"
	case false:
		return "off"
	}
	if fmt.Sprint(v) == "" {
		return "none"
	}
	return v
}

// both reports whether a part can be compared, and notes when it is on one side
// only.
func both[T any](d *Drift, what part, want, got *T) bool {
	switch {
	case want != nil && got == nil:
		d.add(what, "is missing")
	case want == nil && got != nil:
		d.add(what, "is there, want none")
	}
	return want != nil && got != nil
}

func (d *Drift) device(role string, want, got *Device) {
	what := the(role)
	if want != nil {
		what.text = fmt.Sprintf("%s %q", role, want.Name)
	}
	if !both(d, what, want, got) {
		return
	}
	compare(d, what.its("name"), want.Name, got.Name)
	compare(d, what.its("kind"), want.Kind, got.Kind)
	compare(d, what.its("MAC"), want.MAC, got.MAC)
	compare(d, what.its("MTU"), want.MTU, got.MTU)
	compare(d, what.its("link"), link(want.Up), link(got.Up))
	compare(d, what.its("IPv6"), !want.Muted, !got.Muted)
	d.queue(what, want.Queue, got.Queue)
	compare(d, what.its("addresses"), want.Addresses, got.Addresses)
	d.record(what, want.Record, got.Record)
}

func link(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

func (d *Drift) queue(what part, want, got *shape.Queue) {
	if both(d, what.its("queue"), want, got) {
		compare(d, what.its("queue"), *want, *got)
	}
}

// record compares two records word by word: what a changed configuration would
// ask for is hard to see in two long lines.
func (d *Drift) record(what part, want, got string) {
	wanted, there := strings.Fields(want), strings.Fields(got)
	if _, err := ParseRecord(got); err != nil || len(wanted) != len(there) {
		d.add(what.its("alias"), "is %q, want %q", got, want)
		return
	}
	for i := range wanted {
		compare(d, what.its("alias"), wanted[i], there[i])
	}
}

func (d *Drift) membership(want, got bridge.Port) {
	compare(d, the("bridge"), want.Bridge, got.Bridge)
	if want.Bridge != got.Bridge {
		return // another bridge's flags tell nothing
	}
	if want.Blocked != got.Blocked { // which is never wanted
		d.add(the("port state"), "is disabled, want forwarding")
	}
	if want.VLANs != "" && got.VLANs == "" {
		d.add(the("VLANs"), "are none or bridge %s is not VLAN-aware, want VLANs %s", got.Bridge, want.VLANs)
	} else if want.VLANs != "" { // "": the bridge was not VLAN-aware, and has become so
		compare(d, the("VLANs"), want.VLANs, got.VLANs)
	}
	compare(d, the("learning"), want.Learning, got.Learning)
	compare(d, the("unicast flood"), want.UnicastFlood, got.UnicastFlood)
	compare(d, the("multicast flood"), want.MulticastFlood, got.MulticastFlood)
	compare(d, the("broadcast flood"), want.BroadcastFlood, got.BroadcastFlood)
	compare(d, the("isolated"), want.Isolated, got.Isolated)
	compare(d, the("hairpin"), want.Hairpin, got.Hairpin)
	compare(d, the("locked"), want.Locked, got.Locked)
	compare(d, the("BPDU guard"), want.BPDUGuard, got.BPDUGuard)
}

func (d *Drift) entries(want, got []fdb.Entry) {
	for _, w := range want {
		what := the("FDB entry")
		what.text += " " + w.MAC.String()
		if w.VLAN != 0 {
			what.text += fmt.Sprintf(" in VLAN %d", w.VLAN)
		}
		i := slices.IndexFunc(got, func(g fdb.Entry) bool { return g.VLAN == w.VLAN && g.MAC == w.MAC })
		if w.State == fdb.None {
			if i >= 0 && got[i].State != fdb.Learned {
				d.add(what, "is %s, at port %s, want none: the guest has not spoken here", got[i].State, got[i].Port)
			}
			continue
		}
		if i < 0 {
			d.add(what, "is missing")
			continue
		}
		w = w.Given(got[i])
		compare(d, what.its("port"), w.Port, got[i].Port)
		compare(d, what.its("state"), w.State, got[i].State)
		compare(d, what.its("sticky"), w.Sticky, got[i].Sticky)
	}
}

func (d *Drift) access(want, got *tap.Access) {
	if !both(d, the("persistent tap"), want, got) {
		return
	}
	compare(d, the("tap owner"), want.Owner, got.Owner)
	compare(d, the("tap group"), want.Group, got.Group)
	compare(d, the("tap multi-queue"), want.MultiQueue, got.MultiQueue)
}

// redirect is as wanted in any way that works: which one there is depends on the
// kernel, and on what it lets us do.
func (d *Drift) redirect(want, got *redirect.Pair) {
	if !both(d, the("redirect"), want, got) {
		return
	}
	compare(d, the("redirect from tap to pod interface"), want.Out.Works(), got.Out.Works())
	compare(d, the("redirect from pod interface to tap"), want.In.Works(), got.In.Works())
}

func (d *Drift) guard(want, got *guard.Guard) {
	what := the("ipSpoofChk")
	compare(d, what, want != nil, got != nil)
	if want == nil || got == nil {
		return
	}
	if want.Whole != got.Whole {
		d.add(the("ipSpoofChk rules"), "are missing or changed")
	}
	compare(d, what.its("MAC"), want.MACs, got.MACs)
	compare(d, what.its("addresses"), want.Addresses, got.Addresses)
}

func (d *Drift) dan(want, got *dan.NIC) {
	what := the("DAN device")
	if !both(d, what, want, got) {
		return
	}
	compare(d, what.its("sandbox"), want.Sandbox, got.Sandbox)
	compare(d, what.its("tap"), want.Tap, got.Tap)
	compare(d, what.its("name"), want.Name, got.Name)
	compare(d, what.its("MAC"), want.MAC, got.MAC)
	compare(d, what.its("MTU"), want.MTU, got.MTU)
	compare(d, what.its("addresses"), strings.Join(want.Addresses, ", "), strings.Join(got.Addresses, ", "))
	compare(d, what.its("routes"), list(want.Routes), list(got.Routes))
}

func list[T fmt.Stringer](items []T) string {
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = item.String()
	}
	return strings.Join(words, ", ")
}
