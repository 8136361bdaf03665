package conformance

import (
	"fmt"
	"sync"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// crowd is a number of attachments on one bridge, in a few pods, in all modes.
type crowd struct {
	*node
	pods  []*nstest.NS
	confs []conf
	envs  []env
}

func newCrowd(t *testing.T, size int) *crowd {
	t.Helper()
	c := &crowd{node: newNode(t)}
	for range 5 {
		c.pods = append(c.pods, nstest.New(t))
	}
	tables := []conf{{}, libvirt, {"macTableManager": "libvirt", "fdb": "static"}}
	for i := range size {
		c.confs = append(c.confs, c.conf(tables[i%len(tables)], conf{"mode": modes[i%len(modes)]}))
		c.envs = append(c.envs, of(fmt.Sprintf("c%d", i), fmt.Sprintf("net%d", i)), env{"CNI_NETNS": c.pods[i%len(c.pods)].Path})
	}
	return c
}

// env is that of one attachment.
func (c *crowd) env(i int) []env { return c.envs[2*i : 2*i+2] }

// all calls a verb for all of them at once.
func (c *crowd) all(verb string) []answer {
	c.t.Helper()
	answers := make([]answer, len(c.confs))
	var done sync.WaitGroup
	for i := range c.confs {
		caller := c.prepare(verb, c.confs[i], c.env(i)...)
		done.Go(func() { answers[i] = caller.run() })
	}
	done.Wait()
	return answers
}

// 100 ADDs at once on one bridge all succeed, each gets what it asked for and
// nobody else's, and 100 DELs at once leave nothing.
func Test38Concurrency(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, 100)
	before := c.world(c.pods...)
	ports, macs := map[string]bool{}, map[string]bool{}
	for i, a := range c.all("ADD") {
		r := a.result()
		ports[r.port().Name], macs[r.nic().MAC] = true, true
		c.confs[i] = c.confs[i].with(a.prev())
	}
	if len(ports) != len(c.confs) || len(macs) != len(c.confs) {
		t.Errorf("%d ports and %d MACs for %d guests", len(ports), len(macs), len(c.confs))
	}
	for _, a := range c.all("CHECK") {
		a.silent()
	}
	for _, a := range c.all("DEL") {
		a.silent()
	}
	c.same(before, c.pods...)
}

// Of two ADDs at once for one MAC exactly one wins; the other is told to try
// again later, by whom the MAC is held, and leaves nothing.
func TestRaceForOneMAC(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		c := n.conf(libvirt, conf{"mac": guestMAC})
		rivals := []env{of("first", "net1"), of("second", "net2")}
		before := n.world()
		for range 10 {
			answers := make([]answer, len(rivals))
			var done sync.WaitGroup
			for i, e := range rivals {
				caller := n.prepare("ADD", c, e)
				done.Go(func() { answers[i] = caller.run() })
			}
			done.Wait()
			winner, loser := 0, 1
			if answers[0].code != 0 {
				winner, loser = 1, 0
			}
			answers[loser].fails(11, guestMAC, rivals[winner]["CNI_CONTAINERID"])
			n.call("CHECK", c.with(answers[winner].ok().prev()), rivals[winner]).silent()
			n.call("DEL", c, rivals[winner]).silent()
			n.empty()
		}
		n.same(before)
	})
}

// ADDs and DELs of one bridge's guests in any mixture do each other no harm.
func TestComingAndGoing(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, 20)
	before := c.world(c.pods...)
	var done sync.WaitGroup
	rounds := make([][]answer, len(c.confs))
	for i := range c.confs {
		add, del := c.prepare("ADD", c.confs[i], c.env(i)...), c.prepare("DEL", c.confs[i], c.env(i)...)
		done.Go(func() {
			for range 4 {
				rounds[i] = append(rounds[i], add.run(), del.run())
			}
		})
	}
	done.Wait()
	for _, answers := range rounds {
		for _, a := range answers {
			a.ok()
		}
	}
	c.same(before, c.pods...)
}
