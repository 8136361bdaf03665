package plugin

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Whatever a caller hands back as an earlier result: it is refused, or it can be
// used, and an answer with it is one JSON document.
func FuzzPrevResult(f *testing.F) {
	f.Fuzz(func(t *testing.T, prev []byte) {
		stdin := `{"cniVersion":"1.1.0","name":"lan","bridge":"br0","ipam":{"type":"host-local"},"prevResult":` + string(prev) + `}`
		out := &bytes.Buffer{}
		r := &request{stdout: out}
		r.containerID, r.ifName, r.netNS = "c1", "net1", "/run/netns/x"
		if r.read(strings.NewReader(stdin)) != nil {
			return
		}
		c, err := r.config.Parse("")
		if err != nil {
			return
		}
		if _, err := r.inPrevResult(c); err != nil || c.PrevResult == nil {
			return
		}
		_ = r.ownIPs(c, c.PrevResult)
		_, _ = r.guestNetwork(c, c.PrevResult)
		if err := r.printResult(c, c.PrevResult); err == nil && !json.Valid(out.Bytes()) {
			t.Errorf("the answer is %q", out)
		}
	})
}

// Whatever is in the environment: only what can be a file's name and an
// interface's gets past, and no text of it breaks an answer.
func FuzzEnvironment(f *testing.F) {
	f.Fuzz(func(t *testing.T, id, name, ns, more string) {
		values := map[string]string{command: "ADD", containerID: id, ifName: name, netNS: ns, args: more}
		e := readEnvironment(func(key string) string { return values[key] })
		out := &bytes.Buffer{}
		if err := e.check(true, []string{containerID, netNS, ifName}); err != nil {
			r := &request{environment: e, stdout: out, stderr: out}
			if r.printError(err); !json.Valid(out.Bytes()) {
				t.Errorf("the answer is %q", out)
			}
			return
		}
		if strings.ContainsAny(id+name, "/\x00 \n") || strings.HasPrefix(id, ".") || name == "." || name == ".." || len(name) > 15 {
			t.Errorf("%q, %q pass", id, name)
		}
		a := port.Attachment{ID: port.ID{ContainerID: id, IfName: name}, Network: "lan", Bridge: "br0", Mode: port.Veth, Table: port.Kernel, Guest: mac.Addr{2, 0, 0, 0, 0, 1}}
		a.Access.Owner, a.Access.Group = -1, -1
		if back, err := port.ParseRecord(a.Record()); err != nil || !back.Is(a.ID) {
			t.Errorf("record %q of %q, %q: %v", a.Record(), id, name, err)
		}
	})
}
