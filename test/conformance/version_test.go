package conformance

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// spoken is the answer to VERSION.
type spoken struct {
	CNIVersion        string
	SupportedVersions []string
}

func (a answer) spoken() (s spoken) {
	a.t.Helper()
	a.ok().decode(&s)
	return s
}

// VERSION works with nothing but CNI_COMMAND, and empty stdin.
func Test80VERSIONAlone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.prepare("VERSION", "")
	c.env = env{"CNI_COMMAND": "VERSION"}
	for _, stdin := range []string{"", "{}", "no JSON", "[]"} {
		c.stdin = stdin
		if diff := cmp.Diff(versions, c.run().spoken().SupportedVersions); diff != "" {
			t.Errorf("stdin %q: versions (-want +got):\n%s", stdin, diff)
		}
	}
	if a := c.behind("sh", "-c", `exec "$0" <&-`).run(); a.spoken().CNIVersion == "" {
		a.fatalf("no cniVersion")
	}
}

// VERSION echoes the cniVersion of stdin.
func Test81VERSIONEchoes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, version := range append([]string{"0.1.0", "0.2.0", "9.9.9"}, versions...) {
		want := spoken{version, versions}
		if diff := cmp.Diff(want, n.call("VERSION", conf{"cniVersion": version}).spoken()); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	}
}

// Every version in the list is accepted by ADD, and echoed.
func Test82EveryListedVersion(t *testing.T) {
	eachMode(t, func(t *testing.T, n *node) {
		for _, version := range n.call("VERSION", "").spoken().SupportedVersions {
			c := n.conf(conf{"cniVersion": version})
			if got := n.call("ADD", c).result().CNIVersion; got != version {
				t.Errorf("result of version %q for %q", got, version)
			}
			n.call("DEL", c).ok()
		}
	})
}
