// Package plugin speaks CNI: it reads a request from the environment and stdin,
// calls the packages that do the work, and answers in the caller's version. The
// library's own skeleton is not used because the specification asks for more:
// the namespace is checked before anything is made, CNI_PATH is needed only
// where a delegate is, VERSION echoes its input, and an error keeps its context.
package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/containernetworking/cni/pkg/version"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/doctor"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Versions are the CNI versions that results can be given in. Older ones cannot
// express a result without addresses.
var Versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// newest answers callers whose version is not known.
const newest = "1.1.0"

// largestInput bounds what is read from stdin, in bytes.
const largestInput = 4 << 20

// request is one CNI call.
type request struct {
	environment
	stdin  []byte
	config config.Header
	stdout io.Writer
	stderr io.Writer
}

// verb is what a CNI_COMMAND needs, and what it does.
type verb struct {
	needs []string // environment variables
	since string   // the first CNI version that has it
	do    func(*request) error
}

var verbs = map[string]verb{
	"ADD":    {[]string{containerID, netNS, ifName}, "0.3.0", (*request).add},
	"DEL":    {[]string{containerID, ifName}, "", (*request).del},
	"CHECK":  {[]string{containerID, netNS, ifName}, "0.4.0", (*request).check},
	"GC":     {[]string{path}, "1.1.0", (*request).gc},
	"STATUS": {nil, "1.1.0", (*request).status},
}

// Run answers one CNI call and returns the exit code. The result, or the error
// as JSON, goes to stdout; logs and a delegate's own stderr go to stderr.
func Run(getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	signal.Ignore(syscall.SIGPIPE) // a caller who has gone must not keep us from cleaning up
	r := &request{environment: readEnvironment(getenv), stdout: stdout, stderr: stderr}
	if err := attach.Recover(func() error { return r.answer(stdin) }); err != nil {
		r.printError(doctor.Permitted(err))
		return 1
	}
	return 0
}

func (r *request) answer(stdin io.Reader) error {
	if r.command == "VERSION" {
		return r.version(stdin)
	}
	v, known := verbs[r.command]
	if err := r.environment.check(known, v.needs); err != nil {
		return err
	}
	if err := r.read(stdin); err != nil {
		return err
	}
	if err := r.checkVersion(v.since); err != nil {
		return err
	}
	return v.do(r)
}

func (r *request) read(stdin io.Reader) (err error) {
	if r.stdin, err = io.ReadAll(io.LimitReader(stdin, largestInput+1)); err != nil {
		return fmt.Errorf("%w: %w", errIO, err)
	}
	if len(r.stdin) > largestInput {
		return fmt.Errorf("%w: it is longer than %d bytes", config.ErrDecode, largestInput)
	}
	r.config, err = config.ParseHeader(r.stdin)
	return err
}

// checkVersion refuses versions that are not supported, or older than the verb.
// A configuration without one is of version 0.1.0, but for DEL: some runtimes
// send it a reduced configuration, and it has no result to give.
func (r *request) checkVersion(since string) error {
	given := r.config.CNIVersion
	if given == "" && since == "" {
		return nil
	}
	if given == "" {
		return fmt.Errorf(`%w: "cniVersion" is missing, which means "0.1.0", supported are %q`, errVersion, Versions)
	}
	if !slices.Contains(Versions, given) {
		return fmt.Errorf("%w: the configuration has %q, supported are %q", errVersion, given, Versions)
	}
	if since == "" {
		return nil
	}
	enough, err := version.GreaterThanOrEqualTo(given, since)
	if err == nil && !enough {
		err = fmt.Errorf("%w: %s needs %s or later, the configuration has %q", errVersion, r.command, since, given)
	}
	return err
}

// version answers in the caller's version where it names one.
func (r *request) version(stdin io.Reader) error {
	var asked struct {
		CNIVersion string `json:"cniVersion"`
	}
	if f, ok := stdin.(*os.File); !ok || !terminal(f) {
		input, _ := io.ReadAll(io.LimitReader(stdin, largestInput)) // a closed stdin is as good as an empty one
		_ = json.Unmarshal(input, &asked)                           // and so is one that is not JSON
	}
	if asked.CNIVersion == "" {
		asked.CNIVersion = newest
	}
	return r.print(map[string]any{"cniVersion": asked.CNIVersion, "supportedVersions": Versions})
}

// terminal spares a person who tries VERSION by hand the wait for ^D.
func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (r *request) id() port.ID {
	return port.ID{ContainerID: r.containerID, IfName: r.ifName}
}

func (r *request) print(v any) error {
	text, err := json.MarshalIndent(v, "", "    ")
	if err == nil {
		_, err = r.stdout.Write(append(text, '\n'))
	}
	if err != nil {
		return errors.Join(errIO, err)
	}
	return nil
}
