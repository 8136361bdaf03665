package main

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/port"
)

var capability = regexp.MustCompile(`(?m)^ +- ([A-Z_]+) #`)

// given are the capabilities that the manifest gives the agent.
func given(t *testing.T) (all []string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/agent/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range capability.FindAllStringSubmatch(string(text), -1) {
		all = append(all, strings.ToLower(m[1]))
	}
	if len(all) < 2 {
		t.Fatalf("found %q", all)
	}
	return all
}

// confined starts an agent as a container runtime does: with these capabilities, no
// way to others, /proc/sys mounted read-only, and without the mount of a pod's
// namespace.
func confined(t *testing.T, ns, pod *nstest.NS, capabilities []string) *agentProcess {
	t.Helper()
	p := &agentProcess{Cmd: ns.Command("unshare", "--mount", "sh", "-c", `
umount "$1" && shift &&
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro,nosuid,nodev,noexec /proc/sys &&
! { echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6; } 2>/dev/null &&
exec setpriv --no-new-privs --bounding-set "$0" "$@"`, "-all,+"+strings.Join(capabilities, ",+"), pod.Path, os.Args[0])}
	p.Env = append(os.Environ(), asAgent+"=1")
	p.Stderr = &p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
	return p
}

// heals reports whether an agent with these capabilities puts everything right on both
// sides of a port, where nothing leads into the pod but a process of another user, and
// hears a guest's first frame at a locked one.
func heals(t *testing.T, capabilities []string) (bool, string) {
	t.Helper()
	s := &shock{T: t, host: nstest.New(t), pod: nstest.New(t), live: map[port.ID]port.Attachment{}}
	nstest.Bridge(t, s.host, "br0", "02:00:00:00:00:01")
	resident := s.pod.Command("setpriv", "--reuid", "107", "--regid", "107", "--clear-groups", "sleep", "60")
	if err := resident.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resident.Process.Kill(); _ = resident.Wait() })
	a, b := wish(1), wish(2)
	b.Table = port.Follow
	s.attach(a)
	s.attach(b)
	s.agent = confined(t, s.host, s.pod, capabilities)
	time.Sleep(300 * time.Millisecond) // some never start
	for _, command := range []string{"bridge link set dev PORT learning on", "ip link set PORT nomaster", "ip link del IFB", "sysctl -w net.ipv6.conf.PORT.disable_ipv6=0"} {
		s.host.Run(t, "sh", "-c", strings.NewReplacer("PORT", a.PortName(), "IFB", a.IFBName()).Replace(command))
	}
	for _, command := range []string{"tc qdisc del dev TAP ingress", "ip link set TAP mtu 1300", "sysctl -w net.ipv6.conf.TAP.disable_ipv6=0"} {
		s.pod.Run(t, "sh", "-c", strings.ReplaceAll(command, "TAP", a.TapName()))
	}
	vmm := nstest.OpenTap(t, s.pod, b.TapName())
	first := nstest.Frame(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, b.Guest.HardwareAddr(), 60, "first")
	follows := false
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		vmm.Send(first)
		follows = strings.Contains(s.host.Run(t, "bridge", "fdb", "show", "dev", b.PortName()), b.Guest.String())
		if follows && s.wrong() == "" {
			return true, ""
		}
	}
	return false, fmt.Sprintf("follows %v, wrong:\n%s%s", follows, s.wrong(), &s.agent.log)
}

// The agent does all its work with what the manifest gives it, and with one capability
// less it does not.
func TestCapabilities(t *testing.T) {
	all := given(t)
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		if well, why := heals(t, all); !well {
			t.Error(why)
		}
	})
	for i, without := range all {
		t.Run("without "+without, func(t *testing.T) {
			t.Parallel()
			if well, _ := heals(t, slices.Delete(slices.Clone(all), i, i+1)); well {
				t.Errorf("it needs no %s", without)
			}
		})
	}
}
