package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/doctor"
)

// asProgram makes the test's own binary the program.
const asProgram = "TAPBRIDGE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// onNode calls the program in a network and a mount namespace of its own, which a shell
// script has prepared.
func onNode(t *testing.T, prepare, call string) (out string, code int) {
	t.Helper()
	cmd := nstest.New(t).Command("unshare", "--mount", "--propagation", "private", "sh", "-ec", prepare+"\nexec "+call, os.Args[0])
	cmd.Env = append(os.Environ(), asProgram+"=1")
	text, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func findingsOnNode(t *testing.T, prepare string) (found []doctor.Finding, code int) {
	t.Helper()
	out, code := onNode(t, prepare, `"$0" doctor -o json`)
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("code %d, %v: %s", code, err, out)
	}
	return found, code
}

// What keeps a feature from working is said with what helps against that: modules are no
// help where something is read-only.
func TestDoctorsRemedyIsForTheError(t *testing.T) {
	for _, c := range []struct{ name, prepare, says, remedy string }{
		{"/run is read-only", "mount -t tmpfs none /run; mount -o remount,ro /run", "mode veth does not work in a trial: lock bridge", "it must be there and writable"},
		{"/proc/sys is read-only", "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys", "/disable_ipv6: read-only file system", "it must be there and writable"},
		{"no /dev/net/tun", "mount -t tmpfs none /dev/net", "mode host-tap does not work in a trial: create tap", "load the tun module (modprobe tun), and give the plugin /dev/net/tun"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			found, code := findingsOnNode(t, c.prepare)
			i := slices.IndexFunc(found, func(f doctor.Finding) bool { return f.Object == "kernel" && f.Level != doctor.OK })
			if code != 1 || i < 0 || found[i].Level != doctor.Bad || !strings.Contains(found[i].Says, c.says) || !strings.Contains(found[i].Remedy, c.remedy) || strings.HasSuffix(found[i].Says, found[i].Remedy) {
				t.Fatalf("code %d, want %q and %q: %+v", code, c.says, c.remedy, found)
			}
			for _, f := range found {
				if strings.Contains(f.Remedy, "kernel modules") {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// Taps can be made by root also where no VMM of another user could open them.
func TestDoctorSeesTheModeOfTun(t *testing.T) {
	for mode, want := range map[string]doctor.Level{"600": doctor.Note, "660": doctor.Note, "666": doctor.OK} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			found, code := findingsOnNode(t, "mount -t tmpfs none /dev/net; mknod /dev/net/tun c 10 200; chmod "+mode+" /dev/net/tun")
			i := slices.IndexFunc(found, func(f doctor.Finding) bool { return strings.HasPrefix(f.Says, "/dev/net/tun ") })
			if code != 0 || i < 0 || found[i].Level != want || want == doctor.Note &&
				(!strings.Contains(found[i].Says, "mode 0"+mode) || !strings.Contains(found[i].Remedy, "chmod 0666 /dev/net/tun")) {
				t.Errorf("code %d: %+v", code, found)
			}
		})
	}
}

// A kernel without VLAN filtering is said to be one, and nobody is told to turn it on. The
// trial's devices are not taken for the user's.
func TestDoctorKnowsAKernelWithoutVLANs(t *testing.T) {
	t.Parallel()
	const option = "CONFIG_BRIDGE_VLAN_FILTERING"
	can := nstest.HasVLANs(t)
	host := nstest.New(t)
	nstest.Bridge(t, host, "br0", "02:00:00:00:00:01")
	_, stdout, _ := call(host, nil, "", "doctor", "br0")
	if strings.Contains(stdout, option) == can || strings.Contains(stdout, "type bridge vlan_filtering 1") != can || strings.Contains(stdout, "vlan or vlanTrunk works") != can {
		t.Errorf("VLAN filtering: %v; doctor:\n%s", can, stdout)
	}
	env := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "4f5c", "CNI_NETNS": nstest.New(t).Path, "CNI_IFNAME": "net1"}
	code, stdout, _ := call(host, env, `{"cniVersion":"1.1.0","name":"vms","bridge":"br0","vlan":42}`)
	if code == 0 || strings.Contains(stdout, option) == can || strings.Contains(stdout, "type bridge vlan_filtering 1") != can {
		t.Errorf("VLAN filtering: %v; ADD: %s", can, stdout)
	}
}

// Without a port there is no bridge to look at, which is said.
func TestDoctorWithoutPorts(t *testing.T) {
	t.Parallel()
	code, stdout, _ := call(nstest.New(t), nil, "", "doctor")
	if code != 0 || !strings.Contains(stdout, "no bridge was looked at\n      -> tapbridge doctor BRIDGE\n") {
		t.Errorf("code %d:\n%s", code, stdout)
	}
	_, stdout, _ = call(nstest.New(t), nil, "", "doctor", "br0", "-o", "json")
	if !strings.Contains(stdout, "type bridge && ip link set") {
		t.Errorf("a command that cannot be pasted:\n%s", stdout)
	}
}

// Whoever is not root is told to be.
func TestNotPermitted(t *testing.T) {
	const copied = "mount -t tmpfs -o mode=755 none /mnt; cp \"$0\" /mnt/tapbridge; mkdir -p /mnt/bin\n"
	const nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups /mnt/tapbridge "
	for _, c := range []struct{ command, says string }{
		{"doctor", "tapbridge: doctor: make a network namespace: operation not permitted (tapbridge must be run by root)\n"},
		{"install /mnt/bin", "tapbridge: install: write into \"/mnt/bin\": permission denied (tapbridge must be run by root)\n"},
	} {
		if out, code := onNode(t, copied, nobody+c.command); code == 0 || out != c.says {
			t.Errorf("%s: code %d, %q, want %q", c.command, code, out, c.says)
		}
	}
}
