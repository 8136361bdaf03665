package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/tapbridge/tapbridge/pkg/address"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// statusWait bounds a delegate's STATUS: runtimes ask on every poll, and some
// never end a plugin that hangs.
const statusWait = 10 * time.Second

// delegate calls IPAM plugins.
type delegate struct {
	stderr io.Writer
	version.PluginDecoder
}

// FindInPath looks the delegate up in CNI_PATH.
func (d delegate) FindInPath(plugin string, paths []string) (string, error) {
	if len(paths) == 0 {
		return "", fmt.Errorf("%w: delegate %q needs %s", errEnvironment, plugin, path)
	}
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin runs the delegate with our own input and environment, less what is
// for us alone. Its stderr comes out of ours whether it succeeds or fails, which
// the library's executor does not do.
func (d delegate) ExecPlugin(ctx context.Context, plugin string, stdin []byte, environ []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, plugin)
	cmd.WaitDelay = time.Second // for one that leaves a child with its stdout behind
	cmd.Env = withoutOwnArgs(environ)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), d.stderr
	stdout, err := cmd.Output()
	if err == nil {
		return stdout, nil
	}
	answer := &types.Error{}
	if json.Unmarshal(stdout, answer) == nil && answer.Msg != "" {
		return nil, answer
	}
	return nil, fmt.Errorf("%w: it answered %q", err, stdout)
}

// withoutOwnArgs takes MAC out of CNI_ARGS: a delegate that does not know it
// would refuse the call unless IgnoreUnknown is set.
func withoutOwnArgs(environ []string) []string {
	out := make([]string, len(environ))
	for i, kv := range environ {
		out[i] = kv
		if value, ok := strings.CutPrefix(kv, args+"="); ok {
			var kept []string
			for pair := range strings.SplitSeq(value, ";") {
				if !strings.HasPrefix(pair, "MAC=") {
					kept = append(kept, pair)
				}
			}
			out[i] = args + "=" + strings.Join(kept, ";")
		}
	}
	return out
}

// delegated calls the delegate, if there is one, for a verb without a result.
func (r *request) delegated(ctx context.Context, call func(context.Context, string, []byte, invoke.Exec) error) error {
	name := r.config.IPAM
	if name == "" {
		return nil
	}
	return ofDelegate(name, call(ctx, name, r.stdin, &delegate{stderr: r.stderr}))
}

// ofDelegate names the delegate in an error that is its own, or about its answer.
func ofDelegate(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("IPAM delegate %q: %w", name, err)
}

func (r *request) ipamDel() error { return r.delegated(context.Background(), invoke.DelegateDel) }

func (r *request) ipamGC() error { return r.delegated(context.Background(), invoke.DelegateGC) }

// ipamStatus keeps a delegate's own code; one that cannot even be asked makes us
// unavailable, unless it was the caller who did not say where it is.
func (r *request) ipamStatus() error {
	ctx, cancel := context.WithTimeout(context.Background(), statusWait)
	defer cancel()
	err := r.delegated(ctx, invoke.DelegateStatus)
	if err == nil || errors.As(err, new(*types.Error)) || errors.Is(err, errEnvironment) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnavailable, err)
}

// ipamAdd asks for addresses and adds them to the result. Whatever fails after
// the delegate was called, it is told to forget them.
func (r *request) ipamAdd(site *attach.Site, c *config.Config, a port.Attachment, result *types100.Result) error {
	err := attach.Recover(func() error {
		given, err := r.ask(c, a)
		if err != nil {
			return ofDelegate(c.IPAM, err)
		}
		return r.adopt(site, c, a, given, result)
	})
	if err == nil {
		return nil
	}
	if del := r.ipamDel(); del != nil && del.Error() != err.Error() { // a missing delegate says it twice
		return errors.Join(err, del)
	}
	return err
}

// given is a delegate's answer, and what it means for the port.
type given struct {
	*types100.Result
	guard string       // the guest's addresses, see guard.List; "" without ipSpoofChk
	pod   address.Wish // of the pod interface, in mode veth
}

// ask refuses an answer that is not what the attachment needs.
func (r *request) ask(c *config.Config, a port.Attachment) (g given, err error) {
	answer, err := invoke.DelegateAdd(context.Background(), c.IPAM, r.stdin, &delegate{stderr: r.stderr})
	if err != nil {
		return g, err
	}
	if err := config.CheckLists(answer); err != nil {
		return g, err
	}
	if g.Result, err = types100.NewResultFromResult(answer); err != nil {
		return g, err
	}
	if len(g.IPs) == 0 {
		return g, fmt.Errorf(`%w: it gave no address: see the keys of "ipam"`, config.ErrInvalid)
	}
	if err := c.Gateway.Complete(g.Result); err != nil {
		return g, err
	}
	if c.VMConf {
		if err := checkVMAddress(g.IPs); err != nil {
			return g, err
		}
	}
	if a.Guarded {
		if g.guard, err = guarded(a.Guest, g.IPs); err != nil {
			return g, err
		}
	}
	if c.Mode == port.Veth {
		g.pod, err = config.Addressing(g.IPs, g.Routes)
	}
	return g, err
}

// adopt takes the delegate's answer into the result. In mode veth the pod gets the
// addresses, when its guest may use them; a guest gives them to itself.
func (r *request) adopt(site *attach.Site, c *config.Config, a port.Attachment, g given, result *types100.Result) error {
	if a.Guarded {
		if err := site.Admit(a, g.guard); err != nil {
			return err
		}
	}
	if c.Mode == port.Veth {
		if err := site.Address(r.ifName, g.pod); err != nil {
			return err
		}
	}
	for _, i := range g.IPs { // the last interface is the guest's
		i.Interface = types100.Int(len(result.Interfaces) - 1)
	}
	result.IPs = append(result.IPs, g.IPs...)
	result.Routes = append(result.Routes, g.Routes...)
	if c.DNS.IsEmpty() && !g.DNS.IsEmpty() {
		result.DNS = g.DNS
	}
	return nil
}

// ipamCheck asks the delegate, and in mode veth compares the addresses and
// routes of the pod interface with the earlier result.
func (r *request) ipamCheck(site *attach.Site, c *config.Config) error {
	if c.IPAM == "" {
		return nil
	}
	if err := r.delegated(context.Background(), invoke.DelegateCheck); err != nil || c.Mode != port.Veth {
		return err
	}
	wish, err := config.Addressing(r.ownIPs(c, c.PrevResult), c.PrevResult.Routes)
	if err != nil {
		return err
	}
	return site.Addressed(r.id(), wish)
}

// ownIPs are the addresses of our interface. With vmconf they are those of the
// guest's NIC that has the tap's name.
func (r *request) ownIPs(c *config.Config, result *types100.Result) (own []*types100.IPConfig) {
	name := r.ifName
	if c.VMConf {
		name = r.id().TapName()
	}
	for _, i := range result.IPs {
		if n := i.Interface; n != nil && *n >= 0 && *n < len(result.Interfaces) && result.Interfaces[*n].Name == name {
			own = append(own, i)
		}
	}
	return own
}
