package port_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapbridge/tapbridge/pkg/dan"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

func attachment(mode port.Mode, table port.Table) port.Attachment {
	a := port.Attachment{
		ID:      port.ID{ContainerID: "4f5c", IfName: "net1"},
		Network: "vms", Bridge: "br0", Mode: mode, Table: table,
		Guest: mac.Addr{0x52, 0x54, 0, 0x12, 0x34, 0x56},
		MTU:   1400, PortMTU: 1500,
		Access: tap.Access{Owner: 107, Group: 107},
	}
	if mode == port.Veth {
		a.Access = tap.Access{Owner: tap.Anyone, Group: tap.Anyone}
	}
	return a
}

// Names are part of domain XML on other nodes and of running attachments: this
// test may only ever grow.
func TestNamesAreForEver(t *testing.T) {
	for ifName, want := range map[string]string{"pod1a2b": "tap1a2b", "net1": "tap1", "eth0": "tap0", "eth": "tapeth", "x": "tapx"} {
		if got := (port.ID{IfName: ifName}).TapName(); got != want {
			t.Errorf("the tap of %q is %q, want %q", ifName, got, want)
		}
	}
	id := port.ID{ContainerID: "4f5c", IfName: "net1"}
	if got, want := id.PortName(), "tb23cde16daab7"; got != want {
		t.Errorf("the port is %q, want %q", got, want)
	}
	if got, want := id.PromotedName(), "tbt23cde16daab7"; got != want {
		t.Errorf("the promoted tap is %q, want %q", got, want)
	}
	if got, want := id.Group(), uint32(2019257005); got != want {
		t.Errorf("the group is %d, want %d", got, want)
	}
	if !port.Marked(id.PortName(), id.Group()) || port.Marked(id.PortName(), 0) || port.Marked("tbx", id.Group()) || port.Marked(id.PromotedName(), id.Group()) {
		t.Error("a port of ours is not told from others by name and group")
	}
}

func TestWant(t *testing.T) {
	for _, c := range []struct {
		table port.Table
		want  string
	}{
		{port.Kernel, "learning true, flood true, no entry"},
		{port.Sticky, "learning false, flood false, static entry, sticky true"},
		{port.Static, "learning false, flood false, static entry, sticky false"},
		{port.Roaming, "learning true, flood false, roaming entry, sticky false"},
		{port.Follow, "learning true, flood false, none entry, sticky false"},
	} {
		p := attachment(port.Tap, c.table).Want()
		got := fmt.Sprintf("learning %v, flood %v, ", p.Bridge.Learning, p.Bridge.UnicastFlood)
		if p.FDB == nil {
			got += "no entry"
		} else {
			got += fmt.Sprintf("%s entry, sticky %v", p.FDB[0].State, p.FDB[0].Sticky)
		}
		if got != c.want {
			t.Errorf("table %s: %s, want %s", c.table, got, c.want)
		}
	}
}

func TestModesHaveTheirDevices(t *testing.T) {
	for mode, want := range map[port.Mode]string{
		port.Tap:     "port veth fe:54:00:12:34:56 1500; net1 52:54:00:12:34:56 1400 muted; tap1 fe:54:00:12:34:56 1400 muted; redirect; access",
		port.Veth:    "port veth fe:54:00:12:34:56 1500; net1 52:54:00:12:34:56 1400",
		port.HostTap: "port tun fe:54:00:12:34:56 1500; access",
	} {
		if diff := cmp.Diff(want, devices(attachment(mode, port.Sticky).Want())); diff != "" {
			t.Errorf("mode %s (-want +got):\n%s", mode, diff)
		}
	}
}

func devices(p port.Port) string {
	parts := []string{fmt.Sprintf("port %s %s %d", p.End.Kind, p.End.MAC, p.End.MTU)}
	for _, d := range []*port.Device{p.Pod, p.Tap} {
		if d == nil {
			continue
		}
		text := fmt.Sprintf("%s %s %d", d.Name, d.MAC, d.MTU)
		if d.Muted {
			text += " muted"
		}
		parts = append(parts, text)
	}
	if p.Redirect != nil {
		parts = append(parts, "redirect")
	}
	if p.Access != nil {
		parts = append(parts, "access")
	}
	return strings.Join(parts, "; ")
}

// The entry of a roaming guest may go with it, and come back; it may not be missing.
func TestRoamingEntry(t *testing.T) {
	a := attachment(port.HostTap, port.Roaming)
	for _, c := range []struct {
		entry fdb.Entry
		want  string
	}{
		{fdb.Entry{Port: a.PortName(), State: fdb.Static}, ""},
		{fdb.Entry{Port: "up0", State: fdb.Static}, ""},
		{fdb.Entry{Port: "up0", State: fdb.Learned}, ""},
		{fdb.Entry{Port: a.PortName(), State: fdb.Learned}, "state is learned, want static"},
		{fdb.Entry{Port: a.PortName(), State: fdb.Static, Sticky: true}, "sticky is on, want off"},
		{fdb.Entry{MAC: mac.Addr{2}}, "is missing"},
	} {
		want := a.Want()
		got := want
		if c.entry.MAC.IsZero() {
			c.entry.MAC = a.Guest
		}
		got.FDB = []fdb.Entry{c.entry}
		err := port.Diff(want, got)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasSuffix(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.entry, err, c.want)
		}
	}
}

// promoted is mode tap, while the tap is on the host.
const promoted port.Mode = "tap, promoted"

// A promoted tap is the port with all that the veth end had, which is down.
func TestWantPromoted(t *testing.T) {
	a := attachment(port.Tap, port.Sticky)
	a.ToGuest = shape.Limit{Rate: 1e6, Burst: 1e5}
	a.Locked = true
	veth, p := a.Want(), a.WantPromoted()
	if diff := cmp.Diff(veth.Bridge, p.Bridge); diff != "" {
		t.Errorf("flags (-veth +tap):\n%s", diff)
	}
	if p.FDB[0].Port != a.PromotedName() || p.End.Name != a.PromotedName() || p.End.Kind != tap.Kind || p.End.MTU != a.PortMTU || *p.End.Queue != *veth.End.Queue {
		t.Errorf("the port is %+v, with %+v", p.End, p.FDB)
	}
	if p.Idle.Name != a.PortName() || p.Idle.Up || p.Tap != nil || p.Redirect != nil || p.Pod == nil || p.Access == nil {
		t.Errorf("beside it are %+v", p)
	}
	if veth.FDB[0].Port != a.PortName() || !veth.End.Up {
		t.Errorf("the veth end is %+v now, with %+v", veth.End, veth.FDB)
	}
}

// Every field that can be wanted is compared: a new one breaks this test until
// Diff knows it.
func TestDiffComparesEveryField(t *testing.T) {
	for _, mode := range append(port.Modes, promoted) {
		a := attachment(mode, port.Sticky)
		a.VLANs, a.DAN = "42PU 100-101", mode == port.HostTap
		a.ToGuest, a.FromGuest = shape.Limit{Rate: 1e6, Burst: 1e5}, shape.Limit{Rate: 2e6, Burst: 1e5}
		wanted := func() port.Port {
			p := a.Want()
			if mode == promoted {
				a.Mode = port.Tap
				p = a.WantPromoted()
			}
			if p.DAN != nil {
				p.DAN.Addresses, p.DAN.Routes = []string{"10.0.0.2/24"}, []dan.Route{{Dest: "10.1.0.0/16", Gateway: "10.0.0.1"}}
			}
			return p
		}
		want := wanted()
		if err := port.Diff(want, want); err != nil {
			t.Errorf("mode %s: a port differs from itself: %v", mode, err)
		}
		for path, change := range changes(reflect.ValueOf(&want).Elem(), "Port") {
			got := wanted()
			change(reflect.ValueOf(&got).Elem())
			if path == "Port.Name" {
				continue // what Observe was asked for, not what it saw
			}
			if err := port.Diff(want, got); !errors.Is(err, port.ErrDrift) {
				t.Errorf("mode %s: a change of %s is not noticed", mode, path)
			}
		}
	}
}

// changes are, for every field below v, a function that changes it in another
// value of the same type.
func changes(v reflect.Value, path string) map[string]func(reflect.Value) {
	all := map[string]func(reflect.Value){}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		all[path+" missing"] = func(v reflect.Value) { v.SetZero() }
		for p, change := range changes(v.Elem(), path) {
			all[p] = func(v reflect.Value) { change(v.Elem()) }
		}
	case reflect.Struct:
		for i := range v.NumField() {
			for p, change := range changes(v.Field(i), path+"."+v.Type().Field(i).Name) {
				all[p] = func(v reflect.Value) { change(v.Field(i)) }
			}
		}
	case reflect.Slice:
		all[path+" missing"] = func(v reflect.Value) { v.SetZero() }
		for i := range v.Len() {
			for p, change := range changes(v.Index(i), fmt.Sprintf("%s[%d]", path, i)) {
				all[p] = func(v reflect.Value) { change(v.Index(i)) }
			}
		}
	case reflect.Array:
		all[path] = func(v reflect.Value) { flip(v.Index(0)) }
	default:
		all[path] = flip
	}
	return all
}

func flip(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	default:
		panic("no change known for " + v.Kind().String())
	}
}

func TestDiffReadsWell(t *testing.T) {
	want := attachment(port.Tap, port.Sticky).Want()
	got := attachment(port.Tap, port.Sticky).Want()
	got.Bridge.Learning, got.Bridge.UnicastFlood = true, true
	got.FDB[0].Port, got.FDB[0].Sticky = "up0", false
	got.Tap, got.Access, got.Redirect = nil, nil, nil
	got.Pod.MTU = 1500
	want2 := `port "` + want.Name + `": learning is on, want off; unicast flood is on, want off; ` +
		`FDB entry 52:54:00:12:34:56: port is up0, want ` + want.Name + `; FDB entry 52:54:00:12:34:56: sticky is off, want on; ` +
		`pod interface "net1": MTU is 1500, want 1400; tap "tap1" is missing`
	if diff := cmp.Diff(want2, port.Diff(want, got).Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A port is named once, and by the name that `tapbridge ports` has for it; an alias is what
// anybody may have written.
func TestDiffNamesThePortOnce(t *testing.T) {
	a := attachment(port.Tap, port.Sticky)
	name := a.PortName()
	for _, c := range []struct {
		want  port.Port
		spoil func(*port.Port)
		says  string
	}{
		{a.Want(), func(p *port.Port) { p.End = nil }, `port "` + name + `" is missing`},
		{a.Want(), func(p *port.Port) { p.End.MTU, p.End.Up = 1300, false }, `port "` + name + `": MTU is 1300, want 1500; link is down, want up`},
		{a.Want(), func(p *port.Port) { p.End.Record = "a; b" }, `port "` + name + `": alias is "a; b", want "` + a.Record() + `"`},
		{a.WantPromoted(), func(p *port.Port) { p.Bridge.Learning = true }, `port "` + name + `": learning is on, want off`},
		{a.WantPromoted(), func(p *port.Port) { p.End.MTU = 1300 }, `port "` + name + `": port "` + a.PromotedName() + `": MTU is 1300, want 1500`},
	} {
		got := c.want
		end := *got.End
		got.End = &end
		c.spoil(&got)
		if diff := cmp.Diff(c.says, port.Diff(c.want, got).Error()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestRecord(t *testing.T) {
	a := attachment(port.Tap, port.Sticky)
	a.Options = port.Options{Isolated: true, Hairpin: true, Locked: true, DAN: true, Promote: true}
	a.Access.MultiQueue = true
	a.VLANs = "42PU 100-110"
	a.ToGuest, a.FromGuest = shape.Limit{Rate: 12500000, Burst: 1 << 29}, shape.Limit{Rate: 1000000, Burst: 65536}
	want := "tapbridge/1 net=vms id=4f5c if=net1 br=br0 mac=52:54:00:12:34:56 mode=tap fdb=sticky mtu=1400/1500 tap=107:107 vlan=42PU,100-110 " +
		"bw=12500000:536870912/1000000:65536 opt=ihlqdp"
	if diff := cmp.Diff(want, a.Record()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, mode := range port.Modes {
		for _, table := range []port.Table{port.Kernel, port.Sticky, port.Static, port.Roaming, port.Follow} {
			a := attachment(mode, table)
			a.VLANs = "1U 42PU 100-110"
			a.FromGuest = shape.Limit{Rate: 1e6, Burst: 1e5}
			got, err := port.ParseRecord(a.Record())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(a, got); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", mode, table, diff)
			}
		}
	}
}

// The longest of everything still fits an ifalias, and still tells whose it is.
func TestRecordFits(t *testing.T) {
	a := attachment(port.HostTap, port.Roaming)
	a.Network, a.ContainerID = strings.Repeat("n", 300), strings.Repeat("c", 300)
	a.IfName, a.Bridge = strings.Repeat("i", 15), strings.Repeat("b", 15)
	a.MTU, a.PortMTU = 65521, 65521
	a.Access = tap.Access{Owner: math.MaxUint32 - 1, Group: math.MaxUint32 - 1, MultiQueue: true}
	a.Options = port.Options{Isolated: true, Hairpin: true, Locked: true, DAN: true, Promote: true}
	a.ToGuest = shape.Limit{Rate: 1e12 / 8, Burst: math.MaxUint32}
	a.FromGuest = a.ToGuest
	for _, length := range []int{1, 63, 64, 65, 300} {
		a.ContainerID = strings.Repeat("c", length)
		record := a.Record()
		if len(record) > 255 {
			t.Fatalf("a record of %d bytes: %s", len(record), record)
		}
		got, err := port.ParseRecord(record)
		if err != nil {
			t.Fatal(err)
		}
		if got.PortName() != a.PortName() || !got.Is(a.ID) || got.Is(port.ID{ContainerID: "c0", IfName: a.IfName}) || !got.InNetwork(a.Network) || got.InNetwork("n") {
			t.Errorf("record %q has lost whose it is", record)
		}
	}
}

func TestParseRecordRefuses(t *testing.T) {
	good := attachment(port.Tap, port.Sticky).Record()
	for _, bad := range []string{
		"", "eth0 of vm", "tapbridge/2" + good[len("tapbridge/1"):], good + " ", good + " x=y", strings.Replace(good, " mac=52:54:00:12:34:56", "", 1), "tapbridge/1",
		strings.Replace(good, "mode=tap", "mode=tun", 1), strings.Replace(good, "52:54", "53:54", 1), strings.Replace(good, "1400", "+1400", 1), good + " vlan=5,4", good + " vlan=4095", good + " vlan=5-4",
		good + " bw=0:0/0:0", good + " bw=1:2/3:4x", good + " bw=-1:2/3:4", good + " bw=1:2",
	} {
		if a, err := port.ParseRecord(bad); !errors.Is(err, port.ErrNoRecord) {
			t.Errorf("ParseRecord(%q) = %+v, %v; want ErrNoRecord", bad, a, err)
		}
	}
}
