package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/config"
)

const withIPAM = `,"bridge":"br0","ipam":{"type":"x"}`

// delegate is a delegate's answer, by addresses with an optional gateway, and
// routes with one.
func delegate(t *testing.T, ips, routes string) *types100.Result {
	t.Helper()
	var members []string
	for _, ip := range strings.Fields(ips) {
		address, gateway, _ := strings.Cut(ip, ">")
		member := fmt.Sprintf(`{"address":%q}`, address)
		if gateway != "" {
			member = fmt.Sprintf(`{"address":%q,"gateway":%q}`, address, gateway)
		}
		members = append(members, member)
	}
	var list []string
	for _, r := range strings.Fields(routes) {
		dst, gw, _ := strings.Cut(r, ">")
		member := fmt.Sprintf(`{"dst":%q}`, dst)
		if gw != "" {
			member = fmt.Sprintf(`{"dst":%q,"gw":%q}`, dst, gw)
		}
		list = append(list, member)
	}
	text := fmt.Sprintf(`{"cniVersion":"1.1.0","ips":[%s],"routes":[%s]}`, strings.Join(members, ","), strings.Join(list, ","))
	r := &types100.Result{}
	if err := json.Unmarshal([]byte(text), r); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return r
}

// What the keys make of a delegate's answer: its gateways, its routes, what the
// bridge must carry, and what is masqueraded.
func TestGatewayDecisions(t *testing.T) {
	const is, def, masq = `,"isGateway":true`, `,"isDefaultGateway":true`, `,"ipMasq":true`
	for _, c := range []struct{ keys, ips, routes, want string }{
		{"", "10.0.0.2/24", "", "gateways [<nil>] routes []"},
		{is, "10.0.0.2/24", "", "gateways [10.0.0.1] routes [] bridge [10.0.0.1/24] assign"},
		{is, "10.0.0.2/24>10.0.0.254", "", "gateways [10.0.0.254] routes [] bridge [10.0.0.254/24] assign"},
		{is, "fd00::2/64", "", "gateways [fd00::1] routes [] bridge [fd00::1/64] assign"},
		{is, "10.0.0.2/24 10.0.0.3/24", "", "gateways [10.0.0.1 10.0.0.1] routes [] bridge [10.0.0.1/24] assign"},
		{is, "10.0.0.3/31>10.0.0.2", "", "gateways [10.0.0.2] routes [] bridge [10.0.0.2/31] assign"},
		{def, "10.0.0.2/24 fd00::2/64", "", "gateways [10.0.0.1 fd00::1] routes [0.0.0.0/0>10.0.0.1 ::/0>fd00::1] bridge [10.0.0.1/24 fd00::1/64] assign"},
		{def, "10.0.0.2/24 fd00::2/64", "0.0.0.0/0>10.0.0.9", "gateways [10.0.0.1 fd00::1] routes [0.0.0.0/0>10.0.0.9 ::/0>fd00::1] bridge [10.0.0.1/24 fd00::1/64] assign"},
		{def, "10.0.0.2/24", "0.0.0.0/0", "gateways [10.0.0.1] routes [0.0.0.0/0><nil>] bridge [10.0.0.1/24] assign"},
		{def, "10.0.0.2/24 10.1.0.2/24", "10.2.0.0/16>10.0.0.7", "gateways [10.0.0.1 10.1.0.1] routes [10.2.0.0/16>10.0.0.7 0.0.0.0/0>10.0.0.1] bridge [10.0.0.1/24 10.1.0.1/24] assign"},
		{masq, "10.0.0.2/24", "", "gateways [<nil>] routes [] bridge [10.0.0.1/24] masquerade [10.0.0.2/24]"},
		{is + masq + `,"forceAddress":true`, "10.0.0.2/24", "", "gateways [10.0.0.1] routes [] bridge [10.0.0.1/24] assign replace masquerade [10.0.0.2/24]"},
		{is, "10.0.0.1/24", "", "10.0.0.1 cannot be the gateway"},
		{is, "10.0.0.2/32", "", "cannot be the gateway"},
		{is, "fd00::2/128", "", "cannot be the gateway"},
		{is, "10.0.0.2/24>10.1.0.1", "", "10.1.0.1 cannot be the gateway"},
		{is, "10.0.0.2/24>fd00::1", "", "fd00::1 cannot be the gateway"},
	} {
		if got := decide(t, c.keys, delegate(t, c.ips, c.routes)); got != c.want && (strings.HasPrefix(c.want, "gateways") || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %s %s:\n got %s\nwant %s", c.keys, c.ips, c.routes, got, c.want)
		}
	}
}

func decide(t *testing.T, keys string, r *types100.Result) string {
	t.Helper()
	c, err := parse(withIPAM+keys, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Gateway.Complete(r); err != nil {
		if !errors.Is(err, config.ErrInvalid) {
			t.Errorf("%v is not ErrInvalid", err)
		}
		return err.Error()
	}
	gateways, routes := []string{}, []string{}
	for _, i := range r.IPs {
		gateways = append(gateways, i.Gateway.String())
	}
	for _, route := range r.Routes {
		routes = append(routes, fmt.Sprintf("%s>%s", route.Dst.String(), route.GW))
	}
	got := fmt.Sprintf("gateways %v routes %v", gateways, routes)
	if !c.Gateway.Given() {
		return got
	}
	w, err := c.Gateway.Wish(r.IPs)
	if err != nil {
		t.Fatal(err)
	}
	got += fmt.Sprintf(" bridge %v", w.Addresses)
	if w.Assign {
		got += " assign"
	}
	if w.Replace {
		got += " replace"
	}
	if w.Masquerade != nil {
		got += fmt.Sprintf(" masquerade %v", w.Masquerade)
	}
	return got
}

// ipMasq alone is nothing for a bridge that has no address yet.
func TestGatewayNeedsABridge(t *testing.T) {
	for keys, ok := range map[string]bool{`,"ipMasq":true`: false, `,"ipMasq":true,"isGateway":true`: true, `,"isDefaultGateway":true`: true, ``: true} {
		c, err := parse(withIPAM+keys, "")
		if err != nil {
			t.Fatal(err)
		}
		err = c.Gateway.CheckBridge(c.NewBridge(false))
		if (err == nil) != ok || !ok && !(errors.Is(err, config.ErrInvalid) && strings.Contains(err.Error(), `key "ipMasq"`)) {
			t.Errorf("%s: %v", keys, err)
		}
		if err := c.Gateway.CheckBridge(bridge.Bridge{Name: "br0", Index: 7}); err != nil {
			t.Errorf("%s on a bridge that is there: %v", keys, err)
		}
	}
}
