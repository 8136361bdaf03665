package doctor

import (
	"fmt"

	"github.com/tapbridge/tapbridge/internal/remedy"
	"github.com/tapbridge/tapbridge/internal/shell"
	"github.com/tapbridge/tapbridge/pkg/attach"
)

// Ports compares every port of ours with its record, and looks for those whose pod
// has gone.
func Ports(site *attach.Site) ([]Finding, error) {
	all, err := site.Inspect()
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, p := range all {
		found = append(found, inspected(p)...)
	}
	if len(found) == 0 && len(all) > 0 {
		found = append(found, ok("ports", fmt.Sprintf("%d, all as they should be", len(all))))
	}
	return found, nil
}

// unfollowed is worst for a guest that is locked out; one that runs keeps its entry
// too long when it goes.
func unfollowed(p attach.Inspected) Finding {
	if p.Mute() {
		return bad("port "+p.Port.Name, "its guest is waited for, and nobody is there to admit it", startAgent)
	}
	return note("port "+p.Port.Name, fmt.Sprintf("nobody follows its guest, the port stays %s", p.State), startAgent)
}

const (
	startAgent = "start tapbridge-agent in the bridge's network namespace"
	makeAnew   = "delete the pod, or DEL and ADD again"
)

func inspected(p attach.Inspected) (found []Finding) {
	object := "port " + p.Port.Name
	say := func(wrong []string, remedy string) {
		for _, w := range wrong {
			found = append(found, bad(object, w, remedy))
		}
	}
	first := ""
	if p.Unjoinable {
		first = fmt.Sprintf("put bridge %s right first; then ", p.Bridge)
	}
	repair := startAgent + ", undo what has changed it, or " + makeAnew
	if p.Agent {
		repair = "tapbridge-agent repairs it; where it does not, its log says why: " + makeAnew
	}
	say(p.Drift, first+repair)
	say(p.Lasting, first+makeAnew+": no agent repairs it")
	for _, d := range p.OfBridge {
		change := "up"
		if d.Field == attach.BridgeMTU {
			change = fmt.Sprintf("mtu %d", p.MTU)
		}
		say([]string{d.Text}, fmt.Sprintf("ip link set %s %s", shell.Word(p.Bridge), change))
	}
	for _, d := range p.InPod {
		found = append(found, note(object, "in the pod, "+d, "none where KubeVirt's binding or Kata has done that; else "+makeAnew))
	}
	if p.Failed != nil {
		found = append(found, bad(object, remedy.Without(p.Failed), Remedy(p.Failed)))
	}
	if p.Unfollowed {
		found = append(found, unfollowed(p))
	}
	if p.Deserted {
		found = append(found, note(object, fmt.Sprintf("no process is in the pod of container %s: none yet, or none any more", p.ContainerID),
			"only if the runtime does not know the container any more, and where the network has ipam with its whole configuration and CNI_PATH, else the address stays taken: "+removal(p)))
	}
	return found
}

// removal is the command that removes a port. No DEL can have the hash of an id.
func removal(p attach.Inspected) string {
	if p.Hashed() {
		return fmt.Sprintf("DEL with its whole id, of which the record has a hash, or ip link del %s; the next GC or tapbridge-agent removes the rest", shell.Word(p.Port.Name))
	}
	return fmt.Sprintf("echo %s | CNI_COMMAND=DEL CNI_CONTAINERID=%s CNI_IFNAME=%s tapbridge",
		shell.Word(fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q}`, p.Network)), shell.Word(p.ContainerID), shell.Word(p.IfName))
}
