package deploy

import (
	"bytes"
	"fmt"
	"testing"

	core "k8s.io/api/core/v1"
	kubevirt "kubevirt.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/tapbridge/tapbridge/pkg/config"
)

// The manifests that the manual shows are what those who define the kinds take. What has no kind is a kustomization, or a part of a VM.
func TestManual(t *testing.T) {
	objects, err := Manual(root)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{networks: map[string]*config.Config{}}
	kinds := map[string]int{}
	for _, o := range objects {
		if kinds[o.Kind]++; o.Kind != "" && o.Kind != "Pod" {
			err = c.add(o)
		} else {
			err = strict(o.YAML, typeOf(o))
		}
		if err != nil {
			t.Errorf("%s: %v", o.Name, err)
		}
	}
	if fmt.Sprint(kinds) != "map[:4 NetworkAttachmentDefinition:2 Pod:2]" {
		t.Errorf("the manual has %v: does this test know them all?", kinds)
	}
}

func typeOf(o Object) any {
	switch {
	case o.Kind == "Pod":
		return new(core.Pod)
	case bytes.HasPrefix(o.YAML, []byte("resources:")):
		return new(types.Kustomization)
	}
	return new(kubevirt.VirtualMachineInstanceSpec)
}
