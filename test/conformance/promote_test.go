package conformance

import (
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
)

// promote does what the node agent does when the guest speaks, and returns the tap's
// name on the host.
func (n *node) promote(r *result) (tap string) {
	n.t.Helper()
	n.host.Do(func() {
		site, err := attach.OpenPod(n.pod.Path)
		if err != nil {
			n.t.Fatal(err)
		}
		defer site.Close()
		p, there, err := site.Named(r.port().Name)
		if err != nil || !there {
			n.t.Fatalf("port %s is there: %v, %v", r.port().Name, there, err)
		}
		if done, err := site.Promote(p); err != nil || !done {
			n.t.Fatalf("promoted: %v, %v", done, err)
		}
		tap = p.PromotedName()
	})
	return tap
}

// The verbs find a promoted tap: CHECK compares it, DEL and GC remove it, with the
// pod's namespace and without, and an ADD after that succeeds. The configuration of
// DEL has been reduced.
func TestVerbsFindAPromotedTap(t *testing.T) {
	t.Parallel()
	n := newNode(t, conf{"promote": true, "macspoofchk": true, "ipSpoofChk": true, "mtu": 1400}, libvirt, hostLocal(t))
	before := n.world()
	stripped := conf{"bridge": nil, "promote": nil, "macspoofchk": nil, "ipSpoofChk": nil, "mtu": nil, "macTableManager": nil}
	for name, end := range map[string]func(){
		"DEL":                 func() { n.call("DEL", n.conf()).silent() },
		"DEL without the pod": func() { n.call("DEL", n.conf(stripped), env{"CNI_NETNS": ""}).silent() },
		"GC":                  func() { n.call("GC", n.conf(conf{"cni.dev/valid-attachments": []any{}})).silent() },
	} {
		added := n.call("ADD", n.conf()).ok()
		guest := nstest.OpenTap(t, n.pod, "tap1")
		tap := n.promote(added.result())
		n.call("CHECK", n.conf(added.prev())).silent()
		n.call("GC", n.conf(conf{"cni.dev/valid-attachments": []any{conf{"containerID": "c1", "ifname": "net1"}}})).silent()
		n.call("CHECK", n.conf(added.prev())).silent()
		n.host.Run(t, "bridge", "link", "set", "dev", tap, "locked", "off")
		n.call("CHECK", n.conf(added.prev())).fails(100, "locked is off, want on")
		n.call("ADD", n.conf()).fails(4, "DEL it first")
		end()
		n.call("DEL", n.conf()).silent() // the delegate hears of no reduced configuration, and of no GC
		guest.Close()
		if t.Failed() {
			t.Fatalf("%s", name)
		}
		n.same(before)
	}
}
