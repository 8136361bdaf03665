package conformance

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Exit code 0 on success, another on failure.
func Test01ExitCode(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		added := n.call("ADD", n.conf()).ok()
		for _, verb := range []string{"CHECK", "STATUS", "GC", "VERSION", "DEL"} {
			n.call(verb, n.conf(added.prev())).ok()
		}
		for _, verb := range []string{"CHECK", "STATUS", "ADD"} {
			n.call(verb, n.conf(conf{"bridge": "missing"})).fails(anyCode)
		}
		n.call("GC", n.conf(conf{"name": nil})).fails(anyCode)
		n.call("DEL", "not JSON").fails(anyCode)
	})
}

// On failure stdout is exactly one JSON object with code, msg and cniVersion.
func Test02ErrorResult(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, version := range versions {
		c := n.conf(conf{"cniVersion": version, "bridge": "missing"})
		if got := n.call("ADD", c).fails(anyCode).CNIVersion; got != version {
			t.Errorf("cniVersion of the error is %q, want the caller's %q", got, version)
		}
	}
	// What a delegate prints before it fails must not get in between.
	n.ipam.on("ADD", behaviour{Stdout: "chatter\n", Stderr: "panic\n", Code: 2})
	n.call("ADD", n.conf(recording)).fails(anyCode)
	n.call("ADD", n.conf(conf{"a\nb": "c\nd"})).fails(2)
}

// On success of ADD stdout is exactly one JSON document, logs are on stderr
// only.
func Test03StdoutOfADD(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.ipam.on("ADD", behaviour{Stdout: gives("10.9.0.2/24").Stdout, Stderr: "a log line\n"})
		a := n.call("ADD", n.conf(recording))
		a.result()
		if !strings.Contains(a.stderr, "a log line") {
			a.fatalf("the log is not on stderr")
		}
	})
}

// An unknown or missing CNI_COMMAND is E(4), and named.
func Test04Command(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.unchanged(func() {
		n.call(unset, n.conf()).fails(4, "CNI_COMMAND")
		n.call("", n.conf()).fails(4, "CNI_COMMAND")
		n.call("add", n.conf()).fails(4, "CNI_COMMAND", `"add"`)
		n.call("REMOVE", n.conf()).fails(4, "CNI_COMMAND", `"REMOVE"`)
	})
}

// Several missing variables are all named in one E(4).
func Test05AllMissingVariables(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	none := env{"CNI_CONTAINERID": unset, "CNI_NETNS": unset, "CNI_IFNAME": unset, "CNI_PATH": unset}
	n.call("ADD", n.conf(), none).fails(4, "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
	n.call("CHECK", n.conf(), none).fails(4, "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
	n.call("DEL", n.conf(), none).fails(4, "CNI_CONTAINERID", "CNI_IFNAME")
}

// ADD and CHECK without CNI_CONTAINERID, CNI_NETNS or CNI_IFNAME are E(4).
func Test06RequiredVariables(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.unchanged(func() {
		for _, verb := range []string{"ADD", "CHECK"} {
			for _, name := range []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"} {
				n.call(verb, n.conf(), env{name: unset}).fails(4, name)
				n.call(verb, n.conf(), env{name: ""}).fails(4, name)
			}
		}
	})
}

// DEL without CNI_NETNS succeeds.
func Test07DELWithoutNetNS(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		n.call("DEL", n.conf(), env{"CNI_NETNS": unset}).silent()
		n.call("ADD", n.conf()).ok()
		n.call("DEL", n.conf(), env{"CNI_NETNS": unset}).silent()
	})
}

// STATUS and GC need no CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME.
func Test08NodeVerbsNeedNoAttachment(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	none := env{"CNI_CONTAINERID": unset, "CNI_NETNS": unset, "CNI_IFNAME": unset}
	n.call("STATUS", n.conf(), none).silent()
	n.call("GC", n.conf(conf{"cni.dev/valid-attachments": []any{}}), none).silent()
}

// ADD, DEL, CHECK, STATUS without CNI_PATH succeed when no delegate is
// configured.
func Test09PathOnlyForDelegates(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		noPath := env{"CNI_PATH": unset}
		n.call("STATUS", n.conf(), noPath).silent()
		added := n.call("ADD", n.conf(), noPath).ok()
		n.call("CHECK", n.conf(added.prev()), noPath).silent()
		n.call("DEL", n.conf(added.prev()), noPath).silent()
		n.unchanged(func() { n.call("ADD", n.conf(recording), noPath).fails(4, "CNI_PATH") })
		if f := n.call("STATUS", n.conf(recording), noPath).fails(4, "CNI_PATH"); strings.Contains(f.Msg, "cannot attach") {
			t.Errorf("this is not the node's fault: %s", f.Msg)
		}
	})
}

// A CNI_CONTAINERID that is empty, or does not start with a letter or digit, or
// has other characters than letters, digits, '_', '.', '-', is E(4).
func Test10ContainerID(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.unchanged(func() {
		for _, id := range []string{"", "-x", ".x", "_x", "a/b", "a b", "a:b", "a\nb"} {
			for _, verb := range []string{"ADD", "CHECK", "DEL"} {
				n.call(verb, n.conf(), env{"CNI_CONTAINERID": id}).fails(4, "CNI_CONTAINERID")
			}
		}
	})
	for _, id := range []string{"a", "9", "a_b.c-d", strings.Repeat("a", 300)} {
		n.call("ADD", n.conf(), env{"CNI_CONTAINERID": id}).ok()
		n.call("DEL", n.conf(), env{"CNI_CONTAINERID": id}).ok()
	}
}

// A CNI_IFNAME that the kernel would not take is E(4).
func Test11InterfaceName(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.unchanged(func() {
		for _, name := range []string{"", "sixteen-letters!", ".", "..", "a/b", "a:b", "a b", "a%d"} {
			for _, verb := range []string{"ADD", "CHECK", "DEL"} {
				n.call(verb, n.conf(), env{"CNI_IFNAME": name}).fails(4, "CNI_IFNAME")
			}
		}
		for _, name := range []string{"all", "default"} { // which libcni takes: a pod must be able to end
			n.call("ADD", n.conf(), env{"CNI_IFNAME": name}).fails(4, "CNI_IFNAME")
			n.call("DEL", n.conf(), env{"CNI_IFNAME": name}).silent()
		}
	})
	for _, name := range []string{"e", "fifteen-letters", "eth0.100"} {
		n.call("ADD", n.conf(), env{"CNI_IFNAME": name}).ok()
		n.call("DEL", n.conf(), env{"CNI_IFNAME": name}).ok()
	}
}

// Empty or truncated stdin is E(6).
func Test12Stdin(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	whole := text(t, n.conf())
	n.unchanged(func() {
		for _, stdin := range []string{"", " ", whole[:1], whole[:len(whole)/2], whole[:len(whole)-1], "null", "[]", `"x"`, whole + "x", "\xff"} {
			for _, verb := range []string{"ADD", "CHECK", "DEL", "GC", "STATUS"} {
				n.call(verb, stdin).fails(6)
			}
		}
	})
}

// A network name that is missing, has a '/' or starts with '-' is E(7).
func Test13NetworkName(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.unchanged(func() {
		for _, name := range []any{nil, "", "a/b", "-a", ".a", "a b", 7} {
			for _, verb := range []string{"ADD", "CHECK", "GC", "STATUS"} {
				n.call(verb, n.conf(conf{"name": name})).fails(7, "name")
			}
		}
	})
}

// An unknown cniVersion is E(1), with it and the supported ones in the details.
func Test14UnknownVersion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.unchanged(func() {
		for _, verb := range []string{"ADD", "CHECK", "DEL", "GC", "STATUS"} {
			for _, version := range []string{"9.9.9", "0.2.0", "1.1", "x"} {
				a := n.call(verb, n.conf(conf{"cniVersion": version}))
				for _, v := range append([]string{version}, versions...) {
					if f := a.fails(1); !strings.Contains(f.Details, v) {
						a.fatalf("%q is not in the details", v)
					}
				}
			}
		}
	})
}

// An absent cniVersion stands for 0.1.0, which is not supported: E(1). (DEL is
// exempt: design.md, section 5.)
func Test15NoVersion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.unchanged(func() {
		for _, verb := range []string{"ADD", "CHECK", "GC", "STATUS"} {
			n.call(verb, n.conf(conf{"cniVersion": nil})).fails(1, "0.1.0")
			n.call(verb, n.conf(conf{"cniVersion": ""})).fails(1, "0.1.0")
		}
	})
}

// An unknown key at the top is E(2), with key and value in the message; those of
// the specification and of runtimes never are.
func Test16UnknownKeys(t *testing.T) {
	t.Parallel()
	unknown := map[string]conf{
		"mistyped":   {"macTableManger": "libvirt"},
		"other case": {"MacTableManager": "libvirt"},
		"number":     {"frobnicate": 42},
		"object":     {"frobnicate": conf{"deep": true}},
		"null":       {"frobnicate": nil},
	}
	n := newNode(t)
	n.unchanged(func() {
		for name, c := range unknown {
			key := slices.Collect(maps.Keys(c))[0]
			value := asJSON(t, c[key])
			stdin := strings.TrimSuffix(text(t, n.conf()), "}") + `,"` + key + `":` + value + `}`
			t.Log(name)
			n.call("ADD", stdin).fails(2, key, value)
			n.call("STATUS", stdin).fails(2, key, value)
		}
	})
	n.unchanged(func() { // known, but nothing is accepted and ignored
		n.call("ADD", n.conf(conf{"ipMasq": true})).fails(7, "ipMasq", "true", "ipam")
	})
	for name, c := range map[string]conf{
		"args":             {"args": conf{"cni": conf{"labels": []any{}}, "other": 1}},
		"capabilities":     {"capabilities": conf{"mac": true, "unheard-of": true}},
		"runtimeConfig":    {"runtimeConfig": conf{"unheard-of": conf{"a": 1}}},
		"dns":              {"dns": conf{"nameservers": []string{"10.1.1.1"}}},
		"ipMasq false":     {"ipMasq": false},
		"cni.dev":          {"cni.dev/attachments": []any{}, "cni.dev/valid-attachments": []any{}, "cni.dev/unheard-of": 1},
		"multus' device":   {"deviceID": "0000:00:01.0", "pciBusID": "0000:00:01.0", "resourceName": "example.org/nic"},
		"disable and load": {"disableCheck": true, "disableGC": true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			added := n.call("ADD", n.conf(c)).ok()
			n.call("CHECK", n.conf(c, added.prev())).ok()
			n.call("STATUS", n.conf(c)).ok()
			n.call("DEL", n.conf(c, added.prev())).ok()
		})
	}
}

// What is in args and not understood is ignored, as long as args and cni are
// dictionaries.
func Test17ForeignArgs(t *testing.T) {
	t.Parallel()
	for _, args := range []any{
		conf{"org.example": conf{"x": 1}},
		conf{"cni": conf{"labels": []any{conf{"key": "app"}}}},
		conf{"cni": nil, "text": "text"},
		conf{},
	} {
		t.Run(asJSON(t, args), func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			plain := n.call("ADD", n.conf()).result()
			n.call("DEL", n.conf()).ok()
			with := n.call("ADD", n.conf(conf{"args": args})).result()
			if diff := cmp.Diff(plain, with); diff != "" {
				t.Errorf("result (-without +with args):\n%s", diff)
			}
		})
	}
	n := newNode(t)
	n.unchanged(func() {
		for _, args := range []any{"text", []int{1}, 5, conf{"cni": "text"}, conf{"cni": 5}} {
			n.call("ADD", n.conf(conf{"args": args})).fails(7, "args", "want an object")
		}
	})
}

// CNI_NETNS that is the plugin's own namespace is E(8), nothing is made;
// CNI_NETNS_OVERRIDE=1 or true allows it.
func Test18OwnNamespace(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		own := env{"CNI_NETNS": n.host.Path}
		n.unchanged(func() {
			n.call("ADD", n.conf(), own).fails(8, "CNI_NETNS")
			n.call("ADD", n.conf(recording), own, env{"CNI_NETNS_OVERRIDE": "0"}).fails(8)
		})
		if verbs := n.ipam.verbs(); len(verbs) != 0 {
			t.Errorf("the delegate was called: %q", verbs)
		}
		n.unchanged(func() {
			for _, override := range []string{"1", "true", "TRUE"} {
				allowed := env{"CNI_NETNS_OVERRIDE": override}
				added := n.call("ADD", n.conf(), own, allowed).ok()
				n.call("CHECK", n.conf(added.prev()), own, allowed).silent()
				n.call("DEL", n.conf(added.prev()), own, allowed).silent()
			}
		})
	})
}

// CNI_NETNS that does not exist or is no network namespace is E(4) on ADD,
// nothing is made.
func Test19NoNamespace(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		dir := t.TempDir()
		plain := filepath.Join(dir, "plain")
		writeFile(t, plain)
		n.unchanged(func() {
			for _, path := range []string{filepath.Join(dir, "missing"), plain, dir, "/proc/self/ns/mnt", "/dev/null"} {
				n.call("ADD", n.conf(), env{"CNI_NETNS": path}).fails(4, "CNI_NETNS")
			}
			for _, path := range []string{plain, "/proc/self/ns/mnt"} {
				n.call("ADD", n.conf(), env{"CNI_NETNS": path}).fails(4, path+`": `, "it is not a network namespace")
			}
		})
	})
}

// An error keeps within JSON whatever is quoted in it.
func TestErrorsQuoteForeignText(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	f := n.call("ADD", n.conf(conf{"macTableManager": "\"}\\\x01\né"})).fails(7, "é")
	if strings.Contains(f.Msg, "\n") {
		t.Errorf("message of several lines: %q", f.Msg)
	}
}
