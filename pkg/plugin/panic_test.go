package plugin

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
)

// trap is a stdout on which the first write is a defect.
type trap struct {
	strings.Builder
	sprung bool
}

func (s *trap) Write(b []byte) (int, error) {
	if !s.sprung {
		s.sprung = true
		panic("sprung")
	}
	return s.Builder.Write(b)
}

// A panic when all is done but the answer is told, and nothing is left.
func TestPanicIsUndone(t *testing.T) {
	for _, mode := range []string{"tap", "veth", "host-tap"} {
		host, pod := nstest.New(t), nstest.New(t)
		environment := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": pod.Path, "CNI_IFNAME": "net1"}
		before := nstest.World(host, pod)
		out := &trap{}
		host.Do(func() {
			stdin := `{"cniVersion":"1.1.0","name":"lan","bridge":"br0","createBridge":true,"mode":"` + mode + `"}`
			if Run(func(name string) string { return environment[name] }, strings.NewReader(stdin), out, out) == 0 {
				t.Error("success")
			}
		})
		var answer struct {
			Code int
			Msg  string
		}
		if err := json.Unmarshal([]byte(out.String()), &answer); err != nil || answer.Code != 999 || !strings.Contains(answer.Msg, "defect in tapbridge") {
			t.Errorf("the answer is %q: %v", out.String(), err)
		}
		if diff := nstest.Diff(before, nstest.World(host, pod)); diff != "" {
			t.Errorf("mode %s left:\n%s", mode, diff)
		}
	}
}
