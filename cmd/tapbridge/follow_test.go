package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Without an agent a guest is attached that the bridge can learn, and refused where
// it would be mute; both are said.
func TestFollowWithoutAnAgent(t *testing.T) {
	t.Parallel()
	host, pod := nstest.New(t), nstest.New(t)
	nstest.Bridge(t, host, "br0", "02:00:00:00:00:01")
	verb := func(verb, members string) (int, string, string) {
		env := map[string]string{"CNI_COMMAND": verb, "CNI_CONTAINERID": "4f5c", "CNI_NETNS": pod.Path, "CNI_IFNAME": "net1"}
		return call(host, env, `{"cniVersion":"1.1.0","name":"vms","bridge":"br0","macTableManager":"libvirt","fdb":"follow","mac":"52:54:00:12:34:56"`+members+`}`)
	}
	const locked = `,"macspoofchk":true`
	empty := nstest.World(host, pod)
	for _, v := range []string{"ADD", "STATUS"} {
		if code, stdout, _ := verb(v, locked); code == 0 || !strings.Contains(stdout, `"code": 50`) || !strings.Contains(stdout, "no tapbridge-agent runs") {
			t.Errorf("%s of a locked port: %s", v, stdout)
		}
	}
	if diff := nstest.Diff(empty, nstest.World(host, pod)); diff != "" {
		t.Errorf("the ADD that was refused has left:\n%s", diff)
	}
	for _, v := range []string{"STATUS", "ADD"} {
		if code, stdout, stderr := verb(v, ""); code != 0 || !strings.Contains(stderr, "nobody follows the guests") {
			t.Errorf("%s: %s, stderr %q", v, stdout, stderr)
		}
	}
	ports := func(code int, state string, unfollowed bool) {
		t.Helper()
		got, stdout, _ := call(host, nil, "", "ports", "-o", "json")
		var rows []row
		if err := json.Unmarshal([]byte(stdout), &rows); err != nil || len(rows) != 1 || got != code || string(rows[0].State) != state || rows[0].Unfollowed != unfollowed || rows[0].FDB == nil || *rows[0].FDB != port.Follow {
			t.Errorf("code %d, %v: %s; want code %d, state %q, unfollowed %v", got, err, stdout, code, state, unfollowed)
		}
	}
	ports(allRight, "waiting", true)
	if _, stdout, _ := call(host, nil, "", "ports"); !strings.Contains(stdout, "ok, waiting") || !strings.Contains(stdout, "nobody follows its guest") {
		t.Errorf("ports:\n%s", stdout)
	}
	if _, stdout, _ := call(host, nil, "", "doctor"); !strings.Contains(stdout, "nobody follows its guest, the port stays waiting") {
		t.Errorf("doctor:\n%s", stdout)
	}

	var agent *attach.Presence
	var err error
	host.Do(func() { agent, err = attach.AnnounceAgent() })
	if err != nil {
		t.Fatal(err)
	}
	ports(allRight, "waiting", false)
	host.Run(t, "bridge", "fdb", "replace", "52:54:00:12:34:56", "dev", "tb23cde16daab7", "master", "static", "sticky")
	ports(somethingIs, "running", false)
	host.Run(t, "bridge", "link", "set", "dev", "tb23cde16daab7", "learning", "off")
	ports(allRight, "running", false)
	host.Run(t, "bridge", "fdb", "del", "52:54:00:12:34:56", "dev", "tb23cde16daab7", "master")
	ports(somethingIs, "waiting", false)
	if code, stdout, _ := verb("DEL", ""); code != 0 {
		t.Errorf("DEL: %s", stdout)
	}
	for _, v := range []string{"STATUS", "ADD"} {
		if code, stdout, stderr := verb(v, locked); code != 0 || stderr != "" {
			t.Errorf("%s with an agent: %s, stderr %q", v, stdout, stderr)
		}
	}
	ports(allRight, "waiting", false)
	if err := agent.Close(); err != nil {
		t.Fatal(err)
	}
	ports(somethingIs, "waiting", true)
	if _, stdout, _ := call(host, nil, "", "ports"); !strings.Contains(stdout, " mute\n") {
		t.Errorf("ports of a locked port:\n%s", stdout)
	}
	if code, _, _ := verb("STATUS", locked); code == 0 {
		t.Error("STATUS passes after the agent has gone")
	}
	if code, stdout, _ := verb("DEL", locked); code != 0 {
		t.Errorf("DEL: %s", stdout)
	}
	if links := host.Run(t, "ip", "link") + pod.Run(t, "ip", "link"); strings.Contains(links, "tb23cde16daab7") || strings.Contains(links, "tap1") {
		t.Errorf("left:\n%s", links)
	}
}
