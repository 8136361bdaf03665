package conformance

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorderName is the delegate that this test binary is under another name.
const recorderName = "recorder"

// recorder is an IPAM plugin that notes how it was called, and answers as told.
type recorder struct {
	t   testing.TB
	dir string // for CNI_PATH
}

// recorded is one call of the recorder.
type recorded struct {
	Verb  string
	Env   env
	Stdin string
	Links []string // what there was at that moment in its network namespace
}

// behaviour is how the recorder answers to a verb; by default it succeeds, and
// gives the address 10.9.0.2/24.
type behaviour struct {
	Stdout string
	Stderr string
	Code   int
	Delay  time.Duration
}

func newRecorder(t testing.TB) *recorder {
	t.Helper()
	r := &recorder{t, t.TempDir()}
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(r.dir, recorderName))
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// on sets what happens on a verb from now on.
func (r *recorder) on(verb string, b behaviour) {
	r.t.Helper()
	text, err := json.Marshal(b)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.dir, verb), text, 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// failure is an answer with an error of the specification.
func failure(code int, msg string) behaviour {
	return behaviour{Stdout: fmt.Sprintf(`{"cniVersion":"1.1.0","code":%d,"msg":%q}`, code, msg), Code: 1}
}

// gives is an answer to ADD with one address, and whatever more is given as
// members of the result.
func gives(address string, members ...string) behaviour {
	ips := fmt.Sprintf(`"ips":[{"address":%q}]`, address)
	return behaviour{Stdout: "{" + strings.Join(append([]string{`"cniVersion":"1.1.0"`, ips}, members...), ",") + "}"}
}

// calls are those so far, oldest first.
func (r *recorder) calls() (all []recorded) {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, "calls"))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var c recorded
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			r.t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// verbs are the names of the calls so far.
func (r *recorder) verbs() []string {
	r.t.Helper()
	verbs := []string{}
	for _, c := range r.calls() {
		verbs = append(verbs, c.Verb)
	}
	return verbs
}

// last is the latest call.
func (r *recorder) last() recorded {
	r.t.Helper()
	calls := r.calls()
	if len(calls) == 0 {
		r.t.Fatal("the delegate has not been called")
	}
	return calls[len(calls)-1]
}

// record is the recorder's main function.
func record() int {
	dir := filepath.Dir(os.Args[0])
	stdin, _ := io.ReadAll(os.Stdin) // the test sees what is missing
	verb := os.Getenv("CNI_COMMAND")
	if err := note(filepath.Join(dir, "calls"), verb, string(stdin)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	b := behaviourOn(dir, verb, stdin)
	time.Sleep(b.Delay)
	fmt.Fprint(os.Stderr, b.Stderr)
	out := bufio.NewWriter(os.Stdout)
	fmt.Fprint(out, b.Stdout)
	out.Flush()
	return b.Code
}

// note appends in one write, so that calls in parallel do not mix.
func note(path, verb, stdin string) error {
	c := recorded{Verb: verb, Env: env{}, Stdin: stdin}
	for _, kv := range os.Environ() {
		key, value, _ := strings.Cut(kv, "=")
		c.Env[key] = value
	}
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		c.Links = append(c.Links, l.Name)
	}
	slices.Sort(c.Links)
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(append(line, '\n'))
	return err
}

func behaviourOn(dir, verb string, stdin []byte) (b behaviour) {
	if text, err := os.ReadFile(filepath.Join(dir, verb)); err == nil {
		_ = json.Unmarshal(text, &b) // written by on
		return b
	}
	if verb != "ADD" {
		return b
	}
	var asked struct{ CNIVersion string }
	_ = json.Unmarshal(stdin, &asked)
	version := ""
	if strings.HasPrefix(asked.CNIVersion, "0.") {
		version = `"version":"4",`
	}
	return behaviour{Stdout: fmt.Sprintf(`{"cniVersion":%q,"ips":[{%s"address":"10.9.0.2/24"}]}`, asked.CNIVersion, version)}
}
