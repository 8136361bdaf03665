package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/tapbridge/tapbridge/test/guest"
)

// vm is a pod whose process is QEMU, with Linux in it.
type vm struct {
	*pod
	*guest.Linux
	qemu string // the container
	nics []guest.NIC
}

const (
	libvirtUser = 107 // in KubeVirt's launcher
	port        = 7000
)

// vm boots a guest in a pod of a kind. It has a card for each of the pod's interfaces; the first has the pod's address.
func (r *runtime) vm(name, handler string, interfaces ...string) *vm {
	r.t.Helper()
	v := &vm{pod: r.pod(name, handler)}
	for _, i := range interfaces {
		v.nics = append(v.nics, v.nic(i))
	}
	v.nics[0].Addr = netip.PrefixFrom(netip.MustParseAddr(v.address()), 24)
	v.boot()
	return v
}

// nic is the card that a VMM makes for an interface of the pod: as KubeVirt it finds the tap by the name, and reads the rest from the
// interface.
func (p *pod) nic(ifName string) guest.NIC {
	p.t.Helper()
	var links []struct {
		Address string
		MTU     int
	}
	must(p.t, json.Unmarshal([]byte(p.inside("ip", "-j", "link", "show", ifName)), &links))
	mac, err := net.ParseMAC(links[0].Address)
	must(p.t, err)
	return guest.NIC{Tap: "tap" + ifName[3:], MAC: mac, MTU: links[0].MTU}
}

// boot starts QEMU as a user without capabilities in a container and waits for its guest.
func (v *vm) boot() {
	v.t.Helper()
	dir := v.bootFiles()
	args := guest.Arguments(v.nics, "/vm/kernel", "/vm/initrd", "unix:/vm/console,server=on,wait=on")
	v.qemu = v.container("qemu", &cri.ContainerConfig{
		Command: append([]string{tool.Guest.QEMU}, args...),
		Mounts: []*cri.Mount{
			{HostPath: "/usr", ContainerPath: "/usr", Readonly: true},
			{HostPath: dir, ContainerPath: "/vm"},
		},
		Devices: []*cri.Device{{HostPath: tunDevice, ContainerPath: "/dev/net/tun", Permissions: "rw"}},
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			RunAsUser: &cri.Int64Value{Value: libvirtUser}, RunAsGroup: &cri.Int64Value{Value: libvirtUser},
			Capabilities:     &cri.Capability{DropCapabilities: []string{"ALL"}},
			NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
		}},
	})
	var err error
	v.Linux, err = guest.Boot(patient(v.t), v.console(dir))
	if err != nil {
		v.t.Fatalf("%v\nQEMU says: %s", err, v.log("qemu"))
	}
}

// bootFiles returns the directory with what QEMU reads, in which it makes the socket of the console.
func (v *vm) bootFiles() string {
	v.t.Helper()
	name := "vm-" + v.config.Metadata.Name
	kernel, err := os.ReadFile(tool.Guest.Kernel)
	must(v.t, err)
	initrd, err := guest.GuestInitramfs(tool.Guest)
	must(v.t, err)
	v.write(kernel, name, "kernel")
	v.write(initrd, name, "initrd")
	must(v.t, os.Chown(v.path(name), libvirtUser, libvirtUser))
	return v.path(name)
}

// console connects to the guest's serial line; QEMU waits for that.
func (v *vm) console(dir string) (conn net.Conn) {
	v.t.Helper()
	eventually(v.t, "QEMU runs", func() (err error) {
		if conn, err = net.Dial("unix", dir+"/console"); err != nil {
			err = fmt.Errorf("%w: %s", err, v.log("qemu"))
		}
		return err
	})
	v.t.Cleanup(func() { _ = conn.Close() }) // an error: the guest was faster
	return conn
}

// log is what a container of the pod has said.
func (p *pod) log(container string) string {
	text, _ := os.ReadFile(p.path("logs", container+".log")) // there is none before it says something
	return string(text)
}

// addr is the guest's own address.
func (v *vm) addr() netip.Addr { return v.nics[0].Addr.Addr() }

// sh runs a command in the guest and shows what it says.
func (v *vm) sh(command string) string {
	v.t.Helper()
	said, err := v.Run(patient(v.t), command)
	must(v.t, err)
	v.t.Logf("guest %s$ %s\n%s", v.config.Metadata.Name, command, said)
	return said
}

// reaches demands that the guest's pings are answered.
func (v *vm) reaches(addr netip.Addr) {
	v.t.Helper()
	ping, err := v.Ping(patient(v.t), addr, 5)
	must(v.t, err)
	v.t.Logf("guest %s pings %s: %d of %d, %v", v.config.Metadata.Name, addr, ping.Received, ping.Sent, ping.RTTs)
	if ping.Received != ping.Sent {
		v.t.Errorf("want every answer")
	}
}

// sends demands that a TCP transfer arrives whole.
func (v *vm) sends(addr netip.Addr, bytes int64) {
	v.t.Helper()
	transfer, err := v.Transfer(patient(v.t), netip.AddrPortFrom(addr, port), bytes)
	must(v.t, err)
	rate := float64(bytes) * 8 / 1e6 / transfer.Took.Seconds()
	v.t.Logf("guest %s sends %s %d bytes by TCP: %v, %.0f Mbit/s", v.config.Metadata.Name, addr, bytes, transfer.Took, rate)
}
