package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/doctor"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// patient is a node with a bridge, an uplink and one guest in a pod where a
// process lives.
type patient struct {
	*testing.T
	host, pod *nstest.NS
	leave     func() // the process ends
}

const patientPort = "tb23cde16daab7"

func newPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{T: t, host: nstest.New(t), pod: nstest.New(t)}
	nstest.Bridge(t, p.host, "br0", "02:00:00:00:00:01")
	p.run("ip link add up0 type ifb; ip link set up0 master br0 up")
	life := p.pod.Command("sleep", "60")
	if err := life.Start(); err != nil {
		t.Fatal(err)
	}
	p.leave = func() {
		_ = life.Process.Kill() // it may have gone
		_ = life.Wait()
	}
	t.Cleanup(p.leave)
	env := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "4f5c", "CNI_NETNS": p.pod.Path, "CNI_IFNAME": "net1"}
	stdin := `{"cniVersion":"1.1.0","name":"vms","bridge":"br0","macTableManager":"libvirt","mac":"52:54:00:00:00:01","bandwidth":{"egressRate":8000000,"egressBurst":800000}}`
	if code, stdout, _ := call(p.host, env, stdin); code != 0 {
		t.Fatalf("ADD: %s", stdout)
	}
	return p
}

func (p *patient) run(commands string) {
	p.Helper()
	for command := range strings.SplitSeq(commands, "; ") {
		words := strings.Fields(command)
		p.host.Run(p.T, words[0], words[1:]...)
	}
}

// findings are what the doctor says of bridge br0 that is of that level.
func (p *patient) findings(level doctor.Level) (found []doctor.Finding, code int) {
	p.Helper()
	code, stdout, stderr := call(p.host, nil, "", "doctor", "br0", "-o", "json")
	if err := json.Unmarshal([]byte(stdout), &found); err != nil {
		p.Fatalf("code %d, %v: %s%s", code, err, stdout, stderr)
	}
	return slices.DeleteFunc(found, func(f doctor.Finding) bool { return f.Level != level }), code
}

// Each breakage is named together with what to do, and a healthy node has none.
func TestDoctor(t *testing.T) {
	for _, c := range []struct{ name, breakage, object, says, remedy string }{
		{"bridge missing", "ip link del br0", "bridge br0", "no such device", "ip link add br0 type bridge"},
		{"no bridge", "ip link del br0; ip link add br0 type ifb", "bridge br0", "is not a bridge", `name another "bridge"`},
		{"bridge down", "ip link set br0 down", "bridge br0", "it is down", "ip link set br0 up"},
		{"spanning tree", "ip link set br0 type bridge stp_state 1 forward_delay 1500", "bridge br0", "forwards nothing for 30 s", "stp_state 0"},
		{"uplink down", "ip link set up0 down", "uplink up0 of br0", "it is down", "ip link set up0 up"},
		{"uplink without carrier", "ip link add va type veth peer name vb; ip link add up1 link va type macvlan; ip link set up1 master br0 up", "uplink up1 of br0", "no carrier", "cable"},
		{"small uplink", "ip link set br0 mtu 1400; ip link set br0 mtu 1500; ip link set up0 mtu 1400", "uplink up0 of br0", "MTU is 1400, less than the bridge's 1500", "ip link set up0 mtu 1500"},
		{"learning", "bridge link set dev PORT learning on", "port PORT", "learning is on, want off", "start tapbridge-agent"},
		{"entry missing", "bridge fdb del 52:54:00:00:00:01 dev PORT master", "port PORT", "FDB entry 52:54:00:00:00:01 is missing", "start tapbridge-agent"},
		{"port off the bridge", "ip link set PORT nomaster", "port PORT", "bridge is none, want br0", "start tapbridge-agent"},
		{"limit lifted", "tc qdisc del dev PORT ingress", "port PORT", "redirect from port to ifb is off", "start tapbridge-agent"},
		{"port gone", "ip link del PORT", "port PORT", "is missing", "delete the pod, or DEL and ADD again: no agent repairs it"},
		{"tap gone", "nsenter --net=POD ip link del tap1", "port PORT", `tap "tap1" is missing`, "delete the pod, or DEL and ADD again: no agent repairs it"},
		{"bridge gone", "ip link del br0", "port PORT", "bridge is none, want br0", "put bridge br0 right first; then start tapbridge-agent"},
		{"port of a bridge that is down", "ip link set br0 down", "port PORT", "bridge br0 is down", "ip link set br0 up"},
		{"port of a small bridge", "ip link set br0 mtu 1400", "port PORT", "bridge br0 has MTU 1400, less than the guest's 1500", "ip link set br0 mtu 1500"},
		{"port renamed", "ip link set PORT down; ip link set PORT name foo0", "port foo0", `name is "foo0", want "` + patientPort + `"`, "start tapbridge-agent"},
		{"record lost", "ip link set PORT alias mine", "port PORT", `alias is "mine"`, "delete the pod, or DEL and ADD again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			if found, code := p.findings(doctor.Bad); code != 0 || len(found) > 0 {
				t.Fatalf("a healthy node: code %d, %+v", code, found)
			}
			p.run(strings.NewReplacer("PORT", patientPort, "POD", p.pod.Path).Replace(c.breakage))
			found, code := p.findings(doctor.Bad)
			if code != 1 || !slices.ContainsFunc(found, func(f doctor.Finding) bool {
				return f.Object == strings.ReplaceAll(c.object, "PORT", patientPort) && strings.Contains(f.Says, c.says) && strings.Contains(f.Remedy, c.remedy)
			}) {
				t.Errorf("code %d, want 1 and %q %q %q; there is %+v", code, c.object, c.says, c.remedy, found)
			}
		})
	}
}

// What the doctor says against STP is what the kernel accepts, and what it then finds.
func TestDoctorsRemediesForSTP(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.run("ip link set br0 type bridge stp_state 1 forward_delay 1500")
	found, _ := p.findings(doctor.Bad)
	if len(found) != 1 {
		t.Fatalf("found %+v", found)
	}
	off, shorter, _ := strings.Cut(found[0].Remedy, "; where it needs STP, ")
	shorter, _, _ = strings.Cut(shorter, " makes it 4 s")
	p.run("ip link set br0 type bridge " + shorter)
	if found, code := p.findings(doctor.Bad); code != 0 || len(found) > 0 {
		t.Errorf("with %s: code %d, %+v", shorter, code, found)
	}
	found, _ = p.findings(doctor.Note)
	if !slices.ContainsFunc(found, func(f doctor.Finding) bool {
		return strings.Contains(f.Says, "nothing for 4 s") && strings.HasPrefix(f.Remedy, off)
	}) {
		t.Errorf("with %s: %+v", shorter, found)
	}
	p.run(off)
	if found, code := p.findings(doctor.Bad); len(found) > 0 || code != 0 {
		t.Errorf("with %s: %+v", off, found)
	}
}

// Where an agent runs, nobody is told to start one.
func TestDoctorKnowsAnAgent(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	var agent *attach.Presence
	var err error
	p.host.Do(func() { agent, err = attach.AnnounceAgent() })
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	p.run("bridge link set dev " + patientPort + " learning on; nsenter --net=" + p.pod.Path + " ip link del tap1")
	found, _ := p.findings(doctor.Bad)
	for says, remedy := range map[string]string{"learning is on": "tapbridge-agent repairs it; ", `tap "tap1" is missing`: "no agent repairs it"} {
		if !slices.ContainsFunc(found, func(f doctor.Finding) bool {
			return strings.Contains(f.Says, says) && strings.Contains(f.Remedy, remedy) && !strings.Contains(f.Remedy, "start tapbridge-agent")
		}) {
			t.Errorf("no %q with %q: %+v", says, remedy, found)
		}
	}
}

// A pod without a process is told from one that lives, but not taken for dead: after ADD it has none yet.
func TestDoctorFindsLeftovers(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.leave()
	found, code := p.findings(doctor.Note)
	found = slices.DeleteFunc(found, func(f doctor.Finding) bool { return f.Object != "port "+patientPort })
	if code != 0 || len(found) != 1 || !strings.Contains(found[0].Says, "no process is in the pod of container 4f5c: none yet, or none any more") ||
		!strings.Contains(found[0].Remedy, "where the network has ipam with its whole configuration") || !strings.Contains(found[0].Remedy, "CNI_COMMAND=DEL CNI_CONTAINERID=4f5c CNI_IFNAME=net1 tapbridge") {
		t.Errorf("code %d, %+v", code, found)
	}
}

// A container id that is too long for the record cannot be told, and no DEL would take its
// hash: the command for it does without.
func TestDoctorRemovesAHashedLeftover(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	id := port.ID{ContainerID: strings.Repeat("4f", 100), IfName: "net7"}
	env := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": id.ContainerID, "CNI_NETNS": p.pod.Path, "CNI_IFNAME": id.IfName}
	if code, stdout, _ := call(p.host, env, `{"cniVersion":"1.1.0","name":"vms","bridge":"br0"}`); code != 0 {
		t.Fatalf("ADD: %s", stdout)
	}
	p.leave()
	found, _ := p.findings(doctor.Note)
	remedy := "ip link del " + id.PortName()
	if !slices.ContainsFunc(found, func(f doctor.Finding) bool {
		return f.Object == "port "+id.PortName() && strings.Contains(f.Remedy, remedy+";") && !strings.Contains(f.Remedy, "CNI_CONTAINERID")
	}) {
		t.Errorf("no %q: %+v", remedy, found)
	}
	p.run(remedy)
	if found, _ := p.findings(doctor.Note); slices.ContainsFunc(found, func(f doctor.Finding) bool { return strings.Contains(f.Object, id.PortName()) }) {
		t.Errorf("it is there: %+v", found)
	}
}

// A command to paste has a name that a tenant has chosen as a name, and nothing in it is
// done by the shell.
func TestDoctorQuotesNames(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	env := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "4f5d", "CNI_NETNS": p.pod.Path, "CNI_IFNAME": "$(id)"}
	if code, stdout, _ := call(p.host, env, `{"cniVersion":"1.1.0","name":"vms","bridge":"br0"}`); code != 0 {
		t.Fatalf("ADD: %s", stdout)
	}
	p.leave()
	_, stdout, _ := call(p.host, nil, "", "doctor", "`id`")
	for _, want := range []string{
		"ip link add '`id`' type bridge && ip link set '`id`' up,",
		`echo '{"cniVersion":"1.1.0","name":"vms"}' | CNI_COMMAND=DEL CNI_CONTAINERID=4f5d CNI_IFNAME='$(id)' tapbridge`,
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("it does not say %s:\n%s", want, stdout)
		}
	}
}

// What is a choice is noted, and does not make a node bad.
func TestDoctorNotes(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	nstest.Veth(t, p.host, "web0", p.pod, "web1")
	p.run("ip link set web0 master br0")
	found, code := p.findings(doctor.Note)
	for _, want := range []struct{ object, says string }{
		{"bridge br0", "web0: ports that are not tapbridge's"},
		{"uplink up0 of br0", "it is promiscuous"},
		{"bridge br0", "it is not VLAN-aware"},
	} {
		if code != 0 || !slices.ContainsFunc(found, func(f doctor.Finding) bool {
			return f.Object == want.object && strings.Contains(f.Says, want.says) && f.Remedy != ""
		}) {
			t.Errorf("code %d, want 0 and %q; there is %+v", code, want, found)
		}
	}
}

// An uplink is missed only where guests have no other way out.
func TestDoctorMissesAnUplink(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	missed := func(level doctor.Level, says string) {
		t.Helper()
		found, code := p.findings(level)
		if code != 0 || !slices.ContainsFunc(found, func(f doctor.Finding) bool { return strings.Contains(f.Says, says) }) {
			t.Errorf("code %d, want 0 and %q; there is %+v", code, says, found)
		}
	}
	p.run("ip link del up0")
	missed(doctor.Note, "it has no uplink (a veth end or a tap does not count), and no address")
	p.run("ip addr add 10.88.0.1/16 dev br0")
	missed(doctor.OK, "it has no uplink, but an address")
}

// The advice against a small uplink makes nothing else wrong: the bridge is not made smaller
// than its guests.
func TestDoctorsRemedyForASmallUplink(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.run("ip link set br0 mtu 1400; ip link set br0 mtu 1500; ip link set up0 mtu 1400")
	advice := func() string {
		found, _ := p.findings(doctor.Bad)
		if len(found) != 1 {
			t.Fatalf("found %+v", found)
		}
		return found[0].Remedy
	}
	if got := advice(); got != "ip link set up0 mtu 1500" {
		t.Errorf("with a guest of 1500: %s", got)
	}
	env := map[string]string{"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "4f5c", "CNI_NETNS": p.pod.Path, "CNI_IFNAME": "net1"}
	if code, stdout, _ := call(p.host, env, `{"cniVersion":"1.1.0","name":"vms","bridge":"br0"}`); code != 0 {
		t.Fatalf("DEL: %s", stdout)
	}
	if got := advice(); got != "ip link set up0 mtu 1500, or ip link set br0 mtu 1400" {
		t.Errorf("without a guest: %s", got)
	}
}

// Looking leaves nothing behind and sends nothing to the node's devices.
func TestDoctorIsSilent(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	before := nstest.World(p.host, p.pod)
	events := nstest.Monitor(t, p.host)
	p.findings(doctor.Bad)
	if e := events.Events(); len(e) > 0 {
		t.Errorf("doctor made changes: %q", e)
	}
	if diff := nstest.Diff(before, nstest.World(p.host, p.pod)); diff != "" {
		t.Errorf("doctor made changes:\n%s", diff)
	}
}

func TestDoctorUsage(t *testing.T) {
	for _, c := range []struct {
		args         []string
		code         int
		says, saysTo string
	}{
		{[]string{"doctor", "-h"}, 0, "usage: tapbridge doctor", ""},
		{[]string{"doctor", "br0", "br1"}, 2, "", `tapbridge: doctor takes no ["br1"]; usage: tapbridge doctor`},
		{[]string{"doctor", "-o", "yaml"}, 2, "", "usage: tapbridge doctor"},
		{[]string{"doctor", "a/b"}, 2, "", `"a/b" contains / : %`},
	} {
		code, stdout, stderr := call(nil, nil, "", c.args...)
		if code != c.code || !strings.Contains(stdout, c.says) || !strings.Contains(stderr, c.saysTo) {
			t.Errorf("%q: code %d, stdout %q, stderr %q", c.args, code, stdout, stderr)
		}
	}
}
