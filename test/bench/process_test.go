package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// call is one execution of a program in a node's namespace.
type call struct {
	argv  []string
	env   []string
	stdin string
}

// node is a host's namespace with two bridges: br0 for tapbridge, br1 for the
// peers.
type node struct {
	*nstest.NS
	t    testing.TB
	pods []*nstest.NS // to attach to
}

func newNode(t testing.TB, pods int) *node {
	t.Helper()
	n := &node{NS: nstest.New(t), t: t}
	nstest.Bridge(t, n.NS, "br0", "02:00:00:00:00:01")
	nstest.Bridge(t, n.NS, "br1", "02:00:00:00:00:02")
	for range pods {
		n.pods = append(n.pods, nstest.New(t))
	}
	return n
}

// run executes the call, and returns how long that took and what was said.
func (n *node) run(c call) (took time.Duration, out []byte) {
	n.t.Helper()
	took, _, out = n.execute(c)
	return took, out
}

// execute is run, and also tells the processor time, the kernel's share included.
func (n *node) execute(c call) (took, cpu time.Duration, said []byte) {
	n.t.Helper()
	cmd := n.Command(c.argv[0], c.argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = strings.NewReader(c.stdin), &out, &errs, c.env
	var begin time.Time
	var err error
	n.Do(func() {
		begin = time.Now()
		err = cmd.Cmd.Start()
	})
	if err == nil {
		err = cmd.Wait()
	}
	took = time.Since(begin)
	if err != nil {
		n.t.Fatalf("%q with %q: %v\n%s%s", c.argv, c.env, err, out.Bytes(), errs.Bytes())
	}
	return took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), out.Bytes()
}

// plugin is how a runtime calls one for the container of that number.
func (n *node) plugin(program, verb string, container int, ifName, conf string) call {
	return call{[]string{program}, []string{
		"PATH=" + os.Getenv("PATH"), "CNI_PATH=/nowhere", "CNI_COMMAND=" + verb, "CNI_CONTAINERID=pod" + strconv.Itoa(container),
		"CNI_NETNS=" + n.pods[container].Path, "CNI_IFNAME=" + ifName,
	}, conf}
}

func ours(mode port.Mode) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"vms","type":"tapbridge","bridge":"br0","macTableManager":"libvirt","mode":%q}`, mode)
}

// The plugin tap gives its device a MAC address and an MTU only where owner or group is
// missing: then it calls ip twice, as it does when both are.
const (
	bridgeConf   = `{"cniVersion":"1.0.0","name":"ref","type":"bridge","bridge":"br1","ipam":{}}`
	tapConf      = `{"cniVersion":"1.0.0","name":"ref","type":"tap","owner":107,"mac":"fe:54:00:00:00:01","mtu":1500,"ipam":{}}`
	plainTapConf = `{"cniVersion":"1.0.0","name":"ref","type":"tap","owner":107,"group":107,"ipam":{}}`
)

// checking is conf with what ADD has answered.
func (n *node) checking(conf string, result []byte) string {
	n.t.Helper()
	if !json.Valid(result) {
		n.t.Fatalf("no result: %q", result)
	}
	return fmt.Sprintf(`%s,"prevResult":%s}`, strings.TrimSuffix(conf, "}"), result)
}

// processes runs each verb of each mode, and what the peers have for it, in turns.
func processes(t *testing.T, e extent, p programs, r *report) {
	n := newNode(t, 1)
	n.grow(1, 2)
	took, cpu := map[string]*sample{}, map[string]*sample{}
	measure := func(name string, c call) []byte {
		if took[name] == nil {
			took[name], cpu[name] = &sample{}, &sample{}
		}
		wall, busy, out := n.execute(c)
		took[name].took(wall)
		cpu[name].took(busy)
		return out
	}
	for range e.rounds + 1 {
		measure("floor", call{argv: []string{p.nothing}})
		measure("go", call{argv: []string{p.launch}})
		for _, mode := range port.Modes {
			conf, name := ours(mode), string(mode)+" "
			if took[name+warm] == nil {
				took[name+warm], cpu[name+warm] = &sample{}, &sample{}
			}
			took[name+warm].took(n.attachAndRemove(attachment(mode, port.Sticky, 0)))
			result := measure(name+"ADD", n.plugin(p.tapbridge, "ADD", 0, "net1", conf))
			measure(name+"CHECK", n.plugin(p.tapbridge, "CHECK", 0, "net1", n.checking(conf, result)))
			measure(name+"DEL", n.plugin(p.tapbridge, "DEL", 0, "net1", n.checking(conf, result)))
		}
		measure("STATUS", n.plugin(p.tapbridge, "STATUS", 0, "net1", ours(port.Tap)))
		measure("bridge ADD", n.plugin(p.bridge, "ADD", 0, "net1", bridgeConf))
		measure("tap plugin ADD", n.plugin(p.tap, "ADD", 0, "net2", tapConf))
		measure("tap plugin DEL", n.plugin(p.tap, "DEL", 0, "net2", tapConf))
		measure("plain tap ADD", n.plugin(p.tap, "ADD", 0, "net2", plainTapConf))
		measure("plain tap DEL", n.plugin(p.tap, "DEL", 0, "net2", plainTapConf))
		measure("bridge DEL", n.plugin(p.bridge, "DEL", 0, "net1", bridgeConf))
		measure("iproute2 ADD", byHand(n, handAdd))
		measure("iproute2 DEL", byHand(n, handDel))
	}
	for name := range took { // without the first, which reads the programs from the disk
		*took[name] = (*took[name])[1:]
		if busy := cpu[name]; len(*busy) > 0 {
			*busy = (*busy)[1:]
		}
	}
	tellProcesses(r, took)
	tellBusy(r, cpu)
	tellSizes(t, e, p, r, n)
}

// warm is what an ADD takes in a process that is running already.
const warm = "warm"

// attachAndRemove does what ADD does with the kernel, and tells how long that took;
// then it removes the attachment.
func (n *node) attachAndRemove(a port.Attachment) (took time.Duration) {
	n.t.Helper()
	begin := time.Now()
	n.attach(n.pods[0], a)
	took = time.Since(begin)
	n.Do(func() {
		s, err := attach.OpenPod(n.pods[0].Path)
		if err != nil {
			n.t.Fatal(err)
		}
		defer s.Close()
		if err := s.Remove(a.ID); err != nil {
			n.t.Fatal(err)
		}
	})
	return took
}

// handAdd is what mode tap makes, by as few calls of iproute2 as do it. The shell
// starts in the host's namespace; $0 is the pod's.
const handAdd = `set -e
ip -b - <<-X
	link add tbhand address fe:54:00:00:00:01 mtu 1500 group 77 type veth peer name net1 address 52:54:00:00:00:01 mtu 1500 group 77 netns $0
	link set tbhand alias by-hand
X
nsenter --net=$0 sh -ec '
	ip tuntap add dev tap1 mode tap user 107 group 107
	tc -b - <<-X
		qdisc add dev tap1 root noqueue
		qdisc add dev tap1 ingress
		filter add dev tap1 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev net1
		qdisc add dev net1 ingress
		filter add dev net1 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev tap1
	X
	echo 1 >/proc/sys/net/ipv6/conf/tap1/disable_ipv6
	echo 1 >/proc/sys/net/ipv6/conf/net1/disable_ipv6
	ip -b - <<-X
		link set tap1 address fe:54:00:00:00:01 alias by-hand group 77 up
		link set net1 alias by-hand up
	X'
echo 1 >/proc/sys/net/ipv6/conf/tbhand/disable_ipv6
ip link set tbhand master br1
bridge -b - <<-X
	link set dev tbhand learning off flood off
	fdb replace 52:54:00:00:00:01 dev tbhand master static sticky
X
ip link set tbhand up
`

const handDel = `exec nsenter --net=$0 ip link del group 77`

func byHand(n *node, script string) call {
	return call{argv: []string{"sh", "-c", script, n.pods[0].Path}, env: []string{"PATH=" + os.Getenv("PATH")}}
}

func tellProcesses(r *report, took map[string]*sample) {
	floor := took["floor"].median()
	above := func(name string) sample { return took[name].less(floor) }
	r.heading("One process")
	r.text("Milliseconds from the start of the process to its end, less %.2f ms, which `true` took in the same loop; a Go program that does nothing took %s more. "+
		"`bridge` and `tap` are the reference plugins, without IPAM; iproute2 does what mode `tap` does, in batches. "+
		"`tap` gives its device a MAC address and an MTU, as tapbridge does, only with no more than one of owner and group; with both it ignores them, and does not call iproute2. "+
		"The targets are about the former. One other attachment is on the node: for the first of all the kernel changes its own code.", floor, above("go"))
	r.table(verbs(took)...)
	r.text("STATUS took %s ms. In a process that is running already what ADD does with the kernel takes %s ms in mode `tap`, %s in mode `veth` and %s in mode `host-tap`, "+
		"its comparison in the end included; most of that is the kernel's own work. The rest is the start of a process, and what it does for the first time.",
		above("STATUS"), took["tap "+warm].less(0), took["veth "+warm].less(0), took["host-tap "+warm].less(0))
	for _, verb := range []string{"ADD", "DEL"} {
		plot := boxes{axis: verb + ", ms above the floor"}
		for _, who := range []string{"tap", "veth", "host-tap", "bridge", "tap plugin", "plain tap", "iproute2"} {
			plot.add(who, above(who+" "+verb))
		}
		r.plot(strings.ToLower(verb), verb+" beside the peers", &plot)
	}
	add := func(who string) float64 { return above(who + " ADD").median() }
	del := func(who string) float64 { return above(who + " DEL").median() }
	launched := above("go").median()
	r.text("Without the start of a Go program, which all three pay, ADD in mode `tap` takes %.2f of `bridge`, in mode `veth` %.2f, and in mode `host-tap` %.2f of `tap`.",
		ratio(add("tap")-launched, add("bridge")-launched), ratio(add("veth")-launched, add("bridge")-launched), ratio(add("host-tap")-launched, add("tap plugin")-launched))
	r.text("Of `bridge` and `tap` with both owner and group ADD in mode `tap` takes %.2f, DEL %.2f; of that `tap` alone ADD in mode `host-tap` takes %.2f.",
		ratio(add("tap"), add("bridge")+add("plain tap")), ratio(del("tap"), del("bridge")+del("plain tap")), ratio(add("host-tap"), add("plain tap")))
	r.promise("ADD, mode tap, of `bridge` + `tap`", ratio(add("tap"), add("bridge")+add("tap plugin")), "≤", 0.25)
	r.promise("ADD, mode tap, of `bridge`", ratio(add("tap"), add("bridge")), "≤", 0.7)
	r.promise("ADD, mode veth, of `bridge`", ratio(add("veth"), add("bridge")), "≤", 0.5)
	r.promise("ADD, mode host-tap, of `tap`", ratio(add("host-tap"), add("tap plugin")), "≤", 0.3)
	r.promise("DEL, mode tap, of `bridge` + `tap`", ratio(del("tap"), del("bridge")+del("tap plugin")), "≤", 0.5)
	r.promise("DEL, mode tap, of `bridge`", ratio(del("tap"), del("bridge")), "≤", 1.05)
}

// verbs are a table of what is above the floor.
func verbs(of map[string]*sample) [][]string {
	rows := [][]string{{"ms", "ADD", "CHECK", "DEL"}}
	for _, x := range []struct{ title, who string }{
		{"tapbridge, mode `tap`", "tap"},
		{"tapbridge, mode `veth`", "veth"},
		{"tapbridge, mode `host-tap`", "host-tap"},
		{"`bridge`", "bridge"},
		{"`tap`", "tap plugin"},
		{"`tap`, owner and group", "plain tap"},
		{"iproute2", "iproute2"},
	} {
		row := []string{x.title}
		for _, verb := range []string{" ADD", " CHECK", " DEL"} {
			if s := of[x.who+verb]; s != nil {
				row = append(row, s.less(of["floor"].median()).String())
			} else {
				row = append(row, "")
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// tellBusy is what others on the machine disturb least.
func tellBusy(r *report, cpu map[string]*sample) {
	r.text("Processor time of the same runs, the kernel's work for them included but not what it does later or waits for, less the %.2f ms of `true`; a Go program that does nothing: %s.",
		cpu["floor"].median(), cpu["go"].less(cpu["floor"].median()))
	r.table(verbs(cpu)...)
}

// tellSizes is about memory and disk.
func tellSizes(t *testing.T, e extent, p programs, r *report, n *node) {
	memory := func(program string, conf, ifName string) (kib sample) {
		for range min(e.rounds, 20) {
			kib.add(n.memory(n.plugin(program, "ADD", 0, ifName, conf), p.launch))
			n.run(n.plugin(program, "DEL", 0, ifName, conf))
		}
		return kib.less(0)
	}
	size := func(program string) float64 {
		info, err := os.Stat(program)
		if err != nil {
			t.Fatal(err)
		}
		return float64(info.Size())
	}
	r.heading("Memory and disk")
	rows := [][]string{{"", "most memory during ADD, MB", "binary, bytes"}}
	var most, binary float64
	for _, x := range []struct{ name, program, conf, ifName string }{
		{"tapbridge, mode `tap`", p.tapbridge, ours(port.Tap), "net1"},
		{"`bridge`", p.bridge, bridgeConf, "net1"},
		{"`tap`", p.tap, plainTapConf, "net2"},
	} {
		used := memory(x.program, x.conf, x.ifName)
		for i := range used {
			used[i] *= 1024. / 1e6
		}
		if x.program == p.tapbridge {
			most, binary = used.median(), size(x.program)
		}
		rows = append(rows, []string{x.name, used.String(), fmt.Sprintf("%.0f", size(x.program))})
	}
	r.table(rows...)
	r.promise("binary, MB", binary/1e6, "≤", 6)
	r.promise("memory of ADD, MB", most, "≤", 12)
}

// memory is the most that the call uses, in KiB.
func (n *node) memory(c call, launch string) float64 {
	n.t.Helper()
	cmd := n.Command(launch, c.argv...)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr, cmd.Env = strings.NewReader(c.stdin), &errs, c.env
	if err := cmd.Run(); err != nil {
		n.t.Fatalf("%q: %v: %s", c.argv, err, errs.Bytes())
	}
	said := strings.Fields(errs.String())
	kib, err := strconv.ParseFloat(said[len(said)-1], 64)
	if err != nil {
		n.t.Fatalf("%q says %q", launch, errs.String())
	}
	return kib
}
