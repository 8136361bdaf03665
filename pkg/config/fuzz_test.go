package config_test

import (
	"testing"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Whatever a tenant writes: it is refused with an error of this package, or it
// is a plan whose record fits.
func FuzzParse(f *testing.F) {
	f.Add(head+`,"bridge":"br0"}`, "")
	f.Add(head+`,"bridge":"br0","mode":"veth","ipam":{"type":"host-local"},"dns":{"nameservers":["10.0.0.1"]}}`, "IgnoreUnknown=1;MAC=02:00:00:00:00:01")
	f.Add(head+`,"bridge":"br0","macTableManager":"libvirt","fdb":"static","macspoofchk":true,"owner":-1,"mtu":1400}`, "K8S_POD_NAME=a")
	f.Add(head+`,"bridge":"br0","vlan":42,"vlanTrunk":[{"id":5},{"minID":10,"maxID":20}],"preserveDefaultVlan":true}`, "")
	f.Add(head+`,"bridge":"br0","ipam":{"type":"host-local"},"isDefaultGateway":true,"forceAddress":true,"ipMasq":true}`, "")
	f.Add(head+`,"bridge":"br0","prevResult":{"cniVersion":"1.1.0","interfaces":[null],"ips":[{"address":"10.0.0.1/24","interface":7}]}}`, "")
	f.Add(head+`,"bridge":"br0","args":{"cni":{"mac":"02:00:00:00:00:01"}},"runtimeConfig":{"mac":"02:00:00:00:00:02"}}`, "")
	f.Add(head+`,"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}`, "")
	f.Fuzz(func(t *testing.T, stdin, args string) {
		h, err := config.ParseHeader([]byte(stdin))
		if err != nil {
			return
		}
		_, _, _ = h.Attachments() // must not panic
		c, err := h.Parse(args)
		if err != nil {
			return
		}
		for _, br := range []bridge.Bridge{{Name: c.Bridge, MTU: 1500}, {Name: c.Bridge, MTU: 1500, VLANAware: true, DefaultPVID: 1}, c.NewBridge(true)} {
			a, err := c.Plan(port.ID{ContainerID: "c1", IfName: "net1"}, br)
			if err != nil {
				continue
			}
			if record := a.Record(); len(record) > port.LongestRecord {
				t.Errorf("a record of %d bytes: %q", len(record), record)
			}
			if _, err := port.ParseRecord(a.Record()); err != nil {
				t.Errorf("its own record is not read back: %v", err)
			}
		}
	})
}
