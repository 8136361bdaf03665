package conformance

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// every makes the tests of this file strike every call in every way (make
// faults). Otherwise each call is struck in one way.
var every = os.Getenv("TAPBRIDGE_FAULTS") == "all"

// errnos are what the kernel says to a call that is struck.
var errnos = []unix.Errno{unix.EPERM, unix.ENOBUFS, unix.EINTR, unix.EBUSY, unix.ENOMEM}

// stage is where a plugin is struck: the configuration has what the mode can
// have, on three different kinds of bridge. Another attachment is there all the
// time, and must never notice.
type stage struct {
	*node
	mode    string
	c       conf
	bridge  string   // commands that make it anew before each ADD; "": it stays
	masks   string   // the plugin's mount namespace
	ipam    string   // the delegate's data
	kata    string   // the folder for Kata
	forward bool     // the node becomes the guests' gateway
	rules   bool     // the port has rules of nftables
	fresh   []string // as glance sees it, before anything
}

func newStage(t *testing.T, mode string) *stage {
	t.Helper()
	s := &stage{node: newNode(t, conf{"mode": mode}), mode: mode}
	local := hostLocal(t)
	s.ipam = local["ipam"].(conf)["dataDir"].(string)
	limits := conf{"ingressRate": 1e8, "ingressBurst": 1e6, "egressRate": 1e8, "egressBurst": 1e6}
	switch mode {
	case "tap": // the administrator's bridge, with an uplink
		s.c, s.rules = s.conf(libvirt, local, conf{"macspoofchk": true, "ipSpoofChk": true, "bandwidth": limits}), true
	case "veth": // a bridge that ADD makes
		s.c = s.conf(libvirt, local, conf{"bridge": "br1", "createBridge": true, "isDefaultGateway": true, "ipMasq": true, "mtu": 1500})
		s.bridge, s.forward, s.rules = "ip link del br1", true, true
	case "host-tap": // a bridge of which nothing was ever set, and without ports
		s.kata = t.TempDir()
		s.c = s.conf(libvirt, local, conf{"bridge": "br1", "dan": true, "portIsolation": true})
		s.bridge = "ip link del br1; ip link add br1 mtu 9000 type bridge && ip link set br1 up"
		s.masks = "mount -t tmpfs none /run; mkdir /run/kata-containers; mount --bind " + s.kata + " /run/kata-containers"
	}
	neighbour := s.conf(libvirt, conf{"mode": "veth", "mac": guestMAC})
	s.node.call("ADD", neighbour, of("neighbour", "net9")).ok()
	s.reset()
	return s
}

// ready is a call of the attachment, or of its network.
func (s *stage) ready(verb string, changes ...env) *caller {
	s.t.Helper()
	c := s.c
	if verb == "GC" {
		c = c.with(conf{validKey: valid("neighbour", "net9")})
		changes = append(changes, noAttachment)
	}
	call := s.prepare(verb, c, changes...)
	if s.masks != "" {
		call.masked(s.masks)
	}
	return call
}

// nothingKnown is a DEL by container id and interface name alone.
var nothingKnown = env{"CNI_NETNS": unset}

// reset makes the bridge, and the node, as if no ADD had ever been.
func (s *stage) reset() {
	s.t.Helper()
	script := "nft flush ruleset; sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0"
	if s.bridge != "" {
		script = "{ " + s.bridge + "; } 2>&- || true; " + script
	}
	s.host.Run(s.t, "sh", "-c", script)
	s.fresh = s.glance()
}

// glance is what is there, quickly: links with what ADD could change, static
// entries, queues, addresses, rules, forwarding, the delegate's addresses, Kata's
// file.
func (s *stage) glance() (lines []string) {
	s.t.Helper()
	for i, ns := range []*nstest.NS{s.host, s.pod} {
		for _, line := range s.glanceAt(ns) {
			lines = append(lines, fmt.Sprintf("%d %s", i, line))
		}
	}
	for _, pattern := range []string{filepath.Join(s.ipam, "*", "[0-9]*"), filepath.Join(s.kata, "dans", "*"), filepath.Join(s.kata, "dans", ".*")} {
		files, _ := filepath.Glob(pattern) // the pattern is well-formed
		lines = append(lines, files...)
	}
	if s.rules {
		lines = append(lines, strings.Split(s.host.Run(s.t, "nft", "list", "ruleset"), "\n")...)
	}
	if s.forward {
		lines = append(lines, strings.Split(s.host.Run(s.t, "sysctl", "net.ipv4.ip_forward", "net.ipv4.conf.default.forwarding", "net.ipv4.conf.all.accept_redirects"), "\n")...)
	}
	return lines
}

func (s *stage) glanceAt(ns *nstest.NS) (lines []string) {
	s.t.Helper()
	links, err := ns.Handle().LinkList()
	if err != nil {
		s.t.Fatal(err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		a := l.Attrs()
		lines = append(lines, fmt.Sprintf("link %s %s mac %s mtu %d up %t master %q group %d alias %q", a.Name, l.Type(), a.HardwareAddr, a.MTU, a.Flags&net.FlagUp != 0, names[a.MasterIndex], a.Group, a.Alias))
	}
	entries, err := ns.Handle().NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if e.State&unix.NUD_NOARP != 0 {
			lines = append(lines, fmt.Sprintf("entry %s %s", names[e.LinkIndex], e.HardwareAddr))
		}
	}
	queues, err := ns.Handle().QdiscList(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, q := range queues {
		lines = append(lines, fmt.Sprintf("queue %s %s", names[q.Attrs().LinkIndex], q.Type()))
	}
	addresses, err := ns.Handle().AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, a := range addresses {
		lines = append(lines, fmt.Sprintf("address %s %s", names[a.LinkIndex], a.IPNet))
	}
	return lines
}

// tally is a row of the table in docs/reliability.md.
type tally struct {
	sync.Mutex
	calls, faults, kills, leftovers, wrong int
}

// note counts what was found, and tells it.
func (s *stage) note(row *tally, counter *int, format string, args ...any) {
	s.t.Helper()
	row.add(counter)
	s.t.Errorf(format, args...)
}

func (t *tally) add(counter *int) {
	t.Lock()
	*counter++
	t.Unlock()
}

// What may be left without being a leftover: of an ADD that was not undone, a
// bridge that it has made, and forwarding; of a GC the addresses of host-local,
// which has no GC.
var (
	ofADD = []string{"link br1 ", "address br1 ", "queue br1 ", "forward", "accept_redirects"}
	ofGC  = "/addresses/"
)

// clean compares with what was there before anything.
func (s *stage) clean(row *tally, when string, stays ...string) {
	s.t.Helper()
	if s.forward && len(stays) > 0 {
		stays = append(stays, ofADD...)
	}
	without := func(lines []string) string {
		return strings.Join(slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
			return slices.ContainsFunc(stays, func(what string) bool { return strings.Contains(line, what) })
		}), "\n") + "\n"
	}
	if diff := nstest.Diff(without(s.fresh), without(s.glance())); diff != "" {
		s.note(row, &row.leftovers, "%s: left (-before +after):\n%s", when, diff)
	}
}

// bridgeStays lets clean overlook what an ADD that has succeeded leaves.
const bridgeStays = "\x00"

// finish removes everything, whatever has happened.
func (s *stage) finish() {
	s.t.Helper()
	s.ready("DEL").run().ok()
	s.reset()
}

// succeeds demands that an ADD does, and CHECK with it, on a bridge as it should
// be.
func (s *stage) succeeds(row *tally, when string, added answer) {
	s.t.Helper()
	if added.code != 0 {
		s.note(row, &row.wrong, "%s: ADD ended with %d: %s%s", when, added.code, added.stdout, added.stderr)
		return
	}
	c := s.prepare("CHECK", s.c.with(added.prev()))
	if s.masks != "" {
		c.masked(s.masks)
	}
	if check := c.run(); check.code != 0 {
		s.note(row, &row.wrong, "%s: CHECK: %s%s", when, check.stdout, check.stderr)
	}
	bridge, err := s.host.Handle().LinkByName(s.c["bridge"].(string))
	if err != nil {
		s.t.Fatal(err)
	}
	if a := bridge.Attrs(); a.Flags&net.FlagUp == 0 || a.Group != 0 || s.forward && a.MTU != 1500 {
		s.note(row, &row.wrong, "%s: the bridge is %+v", when, *a)
	}
}

// fails demands an error in due form that is no defect and says of nothing that it
// is left.
func (s *stage) fails(row *tally, when, struck string, a answer) {
	s.t.Helper()
	inForm := strings.Contains(a.stdout, `"code"`) || strings.HasPrefix(struck, "write ") // the answer itself was struck
	if a.code != 1 || !inForm || strings.Contains(a.stdout, "defect") || strings.Contains(a.stdout, "left behind") {
		s.note(row, &row.wrong, "%s: exit code %d: %s%s", when, a.code, a.stdout, a.stderr)
	}
}

// gone demands that a verb succeeds and leaves nothing.
func (s *stage) gone(row *tally, when string, verb string) {
	s.t.Helper()
	stays := []string{bridgeStays}
	changes := []env{nothingKnown}
	if verb == "GC" {
		stays, changes = append(stays, ofGC), nil
	}
	if a := s.ready(verb, changes...).run(); a.code != 0 {
		s.note(row, &row.wrong, "%s: then %s: %s%s", when, verb, a.stdout, a.stderr)
	}
	s.clean(row, when+", then "+verb, stays...)
}

// struck lets a verb run into a blow; false when the call was not reached.
func (s *stage) struck(row *tally, verb string, b blow) (a answer, call string, hit bool) {
	s.t.Helper()
	if verb != "ADD" {
		s.ready("ADD").run().ok()
	}
	a, calls := s.ready(verb).traced(b)
	if len(calls) < b.nth {
		return a, "", false
	}
	row.calls = max(row.calls, b.nth)
	return a, calls[b.nth-1], true
}

// fault makes one call fail. What the verb has done by then is undone, or the next
// try does the rest.
func (s *stage) fault(row *tally, verb string, b blow) {
	s.t.Helper()
	defer s.finish()
	a, call, hit := s.struck(row, verb, b)
	if !hit {
		return
	}
	row.add(&row.faults)
	when := fmt.Sprintf("%s %s, call %d (%s) %v", s.mode, verb, b.nth, call, b.errno)
	switch {
	case verb == "ADD" && a.code == 0:
		s.succeeds(row, when, a)
		s.gone(row, when, "DEL")
	case verb == "ADD":
		s.fails(row, when, call, a)
		s.clean(row, when)
	case a.code == 0:
		s.clean(row, when, bridgeStays, map[string]string{"GC": ofGC}[verb])
	default:
		s.fails(row, when, call, a)
		s.gone(row, when, verb)
	}
}

// kill ends the process in place of one call. Whatever comes then, everything is
// right.
func (s *stage) kill(row *tally, verb string, nth int, then string) {
	s.t.Helper()
	defer s.finish()
	_, call, hit := s.struck(row, verb, blow{nth: nth})
	if !hit {
		return
	}
	row.add(&row.kills)
	when := fmt.Sprintf("%s %s, killed at call %d (%s)", s.mode, verb, nth, call)
	if then != "ADD" {
		s.gone(row, when, then)
		if then == "GC" {
			s.ready("DEL").run().ok() // for the delegate
		}
	} else if a := s.ready("ADD").run(); a.code == 0 {
		s.succeeds(row, when+", then ADD", a)
		s.gone(row, when+", then ADD", "DEL")
	} else {
		// host-local keeps the address of an attachment whose DEL was cut off.
		if !strings.Contains(a.stdout, "DEL it first") && !strings.Contains(a.stdout, "duplicate allocation") {
			s.note(row, &row.wrong, "%s, then ADD: %s%s", when, a.stdout, a.stderr)
		}
		s.gone(row, when+", then ADD", "DEL")
	}
	s.succeeds(row, when+", retried", s.ready("ADD").run())
}

// verbs that change something.
var changing = []string{"ADD", "DEL", "GC"}

// strike is one verb in one mode.
func (s *stage) strike(row *tally, verb string) {
	s.t.Helper()
	if verb != "ADD" {
		s.ready("ADD").run().ok()
	}
	_, calls := s.ready(verb).traced(blow{})
	s.finish()
	for nth := 1; nth <= len(calls); nth++ {
		for i, errno := range errnos {
			if every || nth%2 == 0 && nth/2%len(errnos) == i {
				s.fault(row, verb, blow{nth, errno})
			}
		}
		for i, then := range changing {
			if every || nth%2 == 1 && nth/2%len(changing) == i {
				s.kill(row, verb, nth, then)
			}
		}
	}
}

// Whichever call of a verb fails, and wherever it is killed: nothing is left, and
// nothing is other than is said.
func TestFaults(t *testing.T) {
	t.Parallel()
	rows := map[string]*tally{}
	t.Run("group", func(t *testing.T) {
		for _, mode := range modes {
			for _, verb := range changing {
				row := &tally{}
				rows[verb+" | "+mode] = row
				t.Run(mode+" "+verb, func(t *testing.T) {
					t.Parallel()
					s := newStage(t, mode)
					before := s.world()
					s.strike(row, verb)
					if s.bridge == "" {
						s.same(before)
					}
				})
			}
		}
	})
	compareFaults(t, rows)
}
