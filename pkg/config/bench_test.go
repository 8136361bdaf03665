package config_test

import (
	"testing"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// BenchmarkPlan is from the bytes on stdin to what is to be done.
func BenchmarkPlan(b *testing.B) {
	for b.Loop() {
		c, err := parse(`,"bridge":"br0","macTableManager":"libvirt","macspoofchk":true`, "K8S_POD_NAME=vm;MAC=52:54:00:12:34:56;IgnoreUnknown=true")
		if err == nil {
			_, err = c.Plan(port.ID{ContainerID: "c1", IfName: "net1"}, bridge.Bridge{Name: "br0", MTU: 1500})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
