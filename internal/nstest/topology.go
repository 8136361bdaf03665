package nstest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Bridge makes a bridge that is up, keeps the given MAC whatever its ports
// are, forwards at once and says nothing of its own.
func Bridge(t testing.TB, ns *NS, name, mac string) {
	t.Helper()
	ns.Run(t, "ip", "link", "add", name, "address", mac, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
	raise(t, ns, name)
}

// Veth makes a pair of links, one end in each namespace, both up and silent.
func Veth(t testing.TB, a *NS, aName string, b *NS, bName string) {
	t.Helper()
	a.Run(t, "ip", "link", "add", aName, "type", "veth", "peer", "name", bName, "netns", b.Path)
	raise(t, a, aName)
	raise(t, b, bName)
}

// raise turns IPv6 off first: a link that is up would at once begin to solicit
// routers and neighbours.
func raise(t testing.TB, ns *NS, name string) {
	t.Helper()
	var err error
	ns.Do(func() { err = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("disable IPv6 on %q: %v", name, err)
	}
	ns.Run(t, "ip", "link", "set", name, "up")
}

// WaitForwarding waits until the bridge port forwards. A port gets there only
// with carrier, and a tap has carrier only while it is open.
func WaitForwarding(t testing.TB, ns *NS, port string) {
	t.Helper()
	const forwarding = 3 // BR_STATE_FORWARDING
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if state := portAttrs(t, ns, port)[unix.IFLA_BRPORT_STATE]; len(state) == 1 && state[0] == forwarding {
			return
		}
	}
	t.Fatalf("port %q is not forwarding after 5 s: %s", port, ns.Run(t, "ip", "-d", "link", "show", port))
}

// portAttrs reads the IFLA_BRPORT attributes of a link; none when it is not a
// bridge port.
func portAttrs(t testing.TB, ns *NS, name string) map[uint16][]byte {
	t.Helper()
	link, err := ns.linkAttrs(name)
	if err != nil {
		t.Fatalf("read link %q: %v", name, err)
	}
	return nested(nested(link[unix.IFLA_LINKINFO])[unix.IFLA_INFO_SLAVE_DATA])
}

func (n *NS) linkAttrs(name string) (attrs map[uint16][]byte, err error) {
	err = n.within(func() error {
		link, err := readLink(name)
		attrs = nested(link)
		return err
	})
	return attrs, err
}

// readLink returns a link's attributes as the kernel sent them, because
// neither netlink nor iproute2 6.1 decodes all of those of a bridge port.
func readLink(name string) ([]byte, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return nil, err
	}
	if len(msgs) != 1 {
		return nil, fmt.Errorf("%d answers to one question", len(msgs))
	}
	return msgs[0][unix.SizeofIfInfomsg:], nil
}

// nested indexes attributes by type; what does not parse has none.
func nested(b []byte) map[uint16][]byte {
	attrs, _ := nl.ParseRouteAttr(b)
	values := make(map[uint16][]byte, len(attrs))
	for _, attr := range attrs {
		values[attr.Attr.Type&^uint16(unix.NLA_F_NESTED)] = attr.Value
	}
	return values
}
