package redirect

import (
	"cmp"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// Way is how frames are passed on from one device to another.
type Way string

// The ways, by what does it at an ingress qdisc. The faster one is taken where the
// kernel has it and lets us.
const (
	None   Way = ""
	Mirred Way = "mirred" // an action behind a filter that matches all: everywhere
	BPF    Way = "bpf"    // an eBPF program: Linux 5.10
)

// Works reports whether frames pass: either way will do.
func (w Way) Works() bool { return w == Mirred || w == BPF }

// Pair is the state of the redirect between tap and pod interface, wanted or
// seen.
type Pair struct {
	Out Way // what the guest sends into the tap leaves by the pod interface
	In  Way // what arrives at the pod interface goes to the tap
}

// Both is what a working attachment has.
var Both = Pair{Out: BPF, In: BPF}

// Works reports whether frames pass both ways.
func (p Pair) Works() bool { return p.Out.Works() && p.In.Works() }

func (p Pair) String() string {
	if p.Out == p.In {
		return string(p.Out)
	}
	return fmt.Sprintf("out %s, in %s", cmp.Or(p.Out, "none"), cmp.Or(p.In, "none"))
}

// direction is one half of a redirect.
type direction struct {
	from, to int // indexes
	program  program
}

func out(tap, inner int) direction { return direction{tap, inner, toPeer(inner)} }

func in(tap, inner int) direction { return direction{inner, tap, toDevice(tap)} }

// Connect makes the devices at the two indexes pass every frame on to each
// other.
func Connect(c *rtnl.Conn, tap, inner int) error {
	if err := out(tap, inner).connect(c); err != nil {
		return fmt.Errorf("redirect from the tap: %w", err)
	}
	if err := in(tap, inner).connect(c); err != nil {
		return fmt.Errorf("redirect to the tap: %w", err)
	}
	return nil
}

// connect does it by mirred where the program is refused, for whatever reason, as
// by an old kernel, lockdown or seccomp; and where there is no cls_bpf to run it,
// for which the kernel says ENOENT (net/sched/cls_api.c, tcf_proto_lookup_ops).
func (d direction) connect(c *rtnl.Conn) error {
	if err := addIngress(c, d.from); err != nil {
		return err
	}
	fd, err := d.program.load()
	if err != nil {
		return addMirred(c, d.from, d.to)
	}
	defer unix.Close(fd)
	err = addProgram(c, d.from, d.program.name, fd)
	if errors.Is(err, unix.ENOENT) {
		return addMirred(c, d.from, d.to)
	}
	return err
}

// Pass sends what comes in at one device out at the other, by mirred: the one way
// that leads through an ifb and back.
func Pass(c *rtnl.Conn, from, to int) error {
	if err := addIngress(c, from); err != nil {
		return err
	}
	return addMirred(c, from, to)
}

// Observe reads the redirect between the devices at the two indexes.
func Observe(c *rtnl.Conn, tap, inner int) (p Pair, err error) {
	if p.Out, err = out(tap, inner).observe(c); err != nil {
		return Pair{}, err
	}
	p.In, err = in(tap, inner).observe(c)
	return p, err
}

func (d direction) observe(c *rtnl.Conn) (Way, error) {
	first, err := firstFilter(c, d.from)
	switch {
	case err != nil:
		return None, err
	case d.program.is(first):
		return BPF, nil
	case first.isMirred(d.to):
		return Mirred, nil
	}
	return None, nil
}

// Passes reports whether every frame that comes in at one device goes out at the
// other, as Pass makes them.
func Passes(c *rtnl.Conn, from, to int) (bool, error) {
	first, err := firstFilter(c, from)
	return first.isMirred(to), err
}
