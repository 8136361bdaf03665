package attach

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/fdb"
	"github.com/tapbridge/tapbridge/pkg/port"
	"github.com/tapbridge/tapbridge/pkg/redirect"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// Apply makes the attachment on bridge br, which it creates when br has no
// index. It returns when the kernel has been seen to agree with a.Want(), or
// with everything undone. Errors: ErrExists, ErrTaken, ErrStale, ErrBusy (with
// port.ErrDrift where something changed the port while it was made),
// bridge.ErrUnsupported, and what the kernel says.
func (s *Site) Apply(a port.Attachment, br bridge.Bridge) error {
	unlock, err := lock(a.Bridge)
	if err != nil {
		return err
	}
	defer unlock()
	return run(newWork(s, a, br).steps())
}

// Undo takes back an Apply that has succeeded, for a caller who has failed since.
// A bridge that it created goes as well, unless somebody else has joined it.
func (s *Site) Undo(a port.Attachment) error {
	err := s.Remove(a.ID)
	if s.created == nil {
		return err
	}
	unlock, lockErr := lock(a.Bridge)
	if lockErr != nil {
		return errors.Join(err, lockErr)
	}
	defer unlock()
	return errors.Join(err, s.deleteCreated())
}

// work is one Apply under way.
type work struct {
	*Site
	a    port.Attachment
	want port.Port
	br   bridge.Bridge

	port, inner, tap, ifb int // indexes, as they become known
}

func newWork(s *Site, a port.Attachment, br bridge.Bridge) *work {
	want := a.Want()
	want.DAN = nil // the caller describes the NIC when it knows the guest's addresses
	return &work{Site: s, a: a, want: want, br: br}
}

// step is one change, and what takes it back, whole or begun: the kernel may have
// done what it reports a failure of.
type step struct {
	name string
	do   func() error
	undo func() error // nil: an earlier step's undo covers it
}

// steps are in an order in which stopping anywhere is harmless: a port without
// carrier or still down is inert, its flags are complete before it is up, and up
// comes last. The modes differ only in the leg between the port and the VM.
func (w *work) steps() []step {
	steps := []step{{name: "look for names in the way", do: w.vacant}}
	if w.br.Index == 0 {
		steps = append(steps, step{"create the bridge", w.createBridge, w.deleteCreated})
	} else {
		steps = append(steps, step{name: "read the bridge again", do: w.reread})
	}
	steps = append(steps, step{name: "look for MAC addresses in use", do: w.claim})
	return slices.Concat(steps, w.leg(), w.limits(), w.tail())
}

func (w *work) leg() []step {
	veth := []step{
		{"create the veth pair", w.createVeth, w.undoLeg},
		{name: "mark the pod interface", do: w.markInner},
	}
	switch w.a.Mode {
	case port.HostTap:
		return []step{{"create the tap", w.createHostTap, w.undoLeg}}
	case port.Veth:
		return veth
	default:
		return append(veth,
			step{"create the tap", w.createPodTap, w.undoLeg},
			step{name: "redirect between tap and pod interface", do: w.redirect})
	}
}

// limits are what stands at the egress of devices, and what leads the guest's
// frames through one where those are limited.
func (w *work) limits() (steps []step) {
	if w.want.IFB != nil {
		steps = append(steps,
			step{"create the ifb", w.createIFB, w.undoLeg},
			step{name: "redirect from port to ifb", do: w.divert})
	}
	return append(steps, step{name: "set the queues", do: w.setQueues})
}

func (w *work) tail() []step {
	steps := []step{
		{name: "mute the devices", do: w.mute},
		{name: "join the bridge", do: w.join},
		{name: "set the port's flags", do: w.setFlags},
	}
	if w.want.Bridge.VLANs != "" {
		steps = append(steps, step{name: "set the port's VLANs", do: w.setVLANs})
	}
	if w.want.FDB != nil && !w.want.Waits() {
		steps = append(steps, step{name: "write the FDB entry", do: w.writeEntry})
	}
	if w.want.Guard != nil {
		steps = append(steps, step{name: "guard the port", do: w.closePort})
	}
	return append(steps,
		step{name: "set the devices up", do: w.setUp},
		step{name: "verify", do: w.verify})
}

// run takes the steps one after another. When one fails, it and those before it
// are undone in reverse.
func run(steps []step) error {
	for i, s := range steps {
		if err := Recover(s.do); err != nil {
			return errors.Join(err, undo(steps[:i+1]))
		}
	}
	return nil
}

// Recover makes an error of a panic, a defect of ours or of a library, so that what
// was begun is taken back.
func Recover(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v: %s", ErrDefect, p, debug.Stack())
		}
	}()
	return do()
}

func undo(steps []step) (err error) {
	for i := len(steps) - 1; i >= 0; i-- {
		if s := steps[i]; s.undo != nil {
			if e := Recover(s.undo); e != nil {
				err = errors.Join(err, fmt.Errorf("left behind, undoing %q failed: %w", s.name, e))
			}
		}
	}
	return err
}

// vacant refuses to begin where a device is in the way. The kernel would refuse
// as well, but later and in fewer words.
func (w *work) vacant() error {
	end, there, err := find(w.host, w.want.Name)
	switch {
	case err != nil:
		return err
	case there && ours(end, w.a.ID):
		return fmt.Errorf("port %q of container %s, interface %q, %w: DEL it first", w.want.Name, w.a.ContainerID, w.a.IfName, ErrExists)
	case there:
		return fmt.Errorf("a device %q that is not tapbridge's %w: rename or remove it", w.want.Name, ErrExists)
	}
	if err := vacant(w.pod, w.a.IfName, "CNI_IFNAME"); err != nil || w.want.Tap == nil {
		return err
	}
	if err := vacant(w.pod, w.want.Tap.Name, fmt.Sprintf("the tap of %q", w.a.IfName)); err != nil {
		return err
	}
	return w.vacantOnHost()
}

func vacant(pod *rtnl.Conn, name, role string) error {
	_, there, err := find(pod, name)
	if there {
		err = fmt.Errorf("interface %q, %s, %w in the pod's network namespace", name, role, ErrExists)
	}
	return err
}

// reread makes sure, under the lock, that the plan is for the bridge as it is.
func (w *work) reread() (err error) {
	planned := w.br
	w.br, err = bridge.Find(w.host, w.a.Bridge)
	gone := errors.Is(err, bridge.ErrNotFound) && planned.Index != 0
	if err != nil && !gone {
		return err
	}
	if gone || w.br.MTU != planned.MTU || w.br.VLANAware != planned.VLANAware || w.br.DefaultPVID != planned.DefaultPVID && w.br.VLANAware {
		return fmt.Errorf("bridge %q %w", w.a.Bridge, ErrStale)
	}
	if w.br.Unfinished() {
		return bridge.Finish(w.host, w.br)
	}
	return nil
}

// createBridge uses the bridge that another ADD has created meanwhile, if it is
// as planned.
func (w *work) createBridge() (err error) {
	planned := w.br
	if err := w.reread(); !errors.Is(err, bridge.ErrNotFound) {
		return err
	}
	w.br, err = bridge.Create(w.host, planned)
	if errors.Is(err, unix.EEXIST) { // somebody's who takes no lock of ours
		return fmt.Errorf("bridge %q %w", w.a.Bridge, ErrStale)
	}
	if err == nil {
		w.created = &w.br
	}
	return err
}

func (s *Site) deleteCreated() error {
	if s.created == nil {
		return nil
	}
	return bridge.Delete(s.host, *s.created)
}

func (w *work) mark() rtnl.Mark {
	return rtnl.Mark{Group: w.a.Group(), Alias: w.a.Record()}
}

func (w *work) createVeth() error {
	end := func(d *port.Device) redirect.End { return redirect.End{Name: d.Name, MAC: d.MAC, MTU: d.MTU} }
	return exists(redirect.AddPair(w.host, w.pod, end(w.want.End), end(w.want.Pod), w.mark()))
}

func (w *work) markInner() error {
	l, err := w.host.LinkNamed(w.want.Name)
	if err != nil {
		return err
	}
	w.port, w.inner = l.Index, l.PeerIndex
	if err := w.pod.SetLink(w.inner, w.mark().Attributes()...); err != nil {
		return fmt.Errorf("mark %q: %w", w.want.Pod.Name, err)
	}
	return nil
}

func (w *work) createHostTap() (err error) {
	w.port, err = w.createTap(w.host, w.want.End)
	return err
}

func (w *work) createPodTap() (err error) {
	w.tap, err = w.createTap(w.pod, w.want.Tap)
	return err
}

func (w *work) createTap(c *rtnl.Conn, d *port.Device) (int, error) {
	index, err := tap.Add(c, tap.Tap{Name: d.Name, MAC: d.MAC, MTU: d.MTU, Access: *w.want.Access, Label: w.a.Label}, w.mark())
	return index, exists(err)
}

// exists gives the kernel's word for a name that is taken our own.
func exists(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}

// createIFB first removes what a DEL has left that was killed after the port.
func (w *work) createIFB() (err error) {
	if err := w.removeIFB(w.a.ID); err != nil {
		return err
	}
	d := w.want.IFB
	w.ifb, err = shape.AddIFB(w.host, d.Name, d.MAC, d.MTU, w.mark())
	return exists(err)
}

func (w *work) divert() error { return redirect.Pass(w.host, w.port, w.ifb) }

func (w *work) setQueues() error {
	for _, d := range w.devices() {
		if d.wanted.Queue == nil {
			continue
		}
		if err := d.setQueue(); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) redirect() error { return redirect.Connect(w.pod, w.tap, w.inner) }

// mute enters the pod once for all that is there.
func (w *work) mute() error {
	for _, side := range []*rtnl.Conn{w.pod, w.host} {
		var names []string
		for _, d := range w.devices() {
			if d.conn == side && d.wanted.Muted {
				names = append(names, d.wanted.Name)
			}
		}
		if len(names) == 0 {
			continue
		}
		if err := side.Mute(names...); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) join() error {
	if err := w.br.Pin(w.host, w.want.End.MAC); err != nil {
		return err
	}
	if err := bridge.Join(w.host, w.port, w.br); err != nil {
		return fmt.Errorf("port %q: %w", w.want.Name, err)
	}
	return nil
}

func (w *work) setFlags() error {
	if err := w.want.Bridge.Set(w.host, w.port); err != nil {
		return fmt.Errorf("port %q: %w", w.want.Name, err)
	}
	return nil
}

func (w *work) setVLANs() error {
	if err := w.want.Bridge.VLANs.Set(w.host, w.port); err != nil {
		return fmt.Errorf("port %q: %w", w.want.Name, err)
	}
	return nil
}

// writeEntry leaves it to the kernel to write the entry into each VLAN of the
// port, which it has by now.
func (w *work) writeEntry() error {
	everywhere := w.want.FDB[0]
	everywhere.VLAN = 0
	if err := fdb.Replace(w.host, w.port, everywhere); err != nil {
		return fmt.Errorf("port %q: %w", w.want.Name, err)
	}
	return nil
}

// setUp raises the port last: until then nothing can reach the bridge.
func (w *work) setUp() error {
	for _, d := range w.devices() {
		if err := d.raise(); err != nil {
			return err
		}
	}
	return nil
}

// devices are those of the attachment, the port last.
func (w *work) devices() (all []placed) {
	if w.want.Tap != nil {
		all = append(all, placed{w.want.Tap, w.pod, w.tap})
	}
	if w.want.Pod != nil {
		all = append(all, placed{w.want.Pod, w.pod, w.inner})
	}
	if w.want.IFB != nil {
		all = append(all, placed{w.want.IFB, w.host, w.ifb})
	}
	return append(all, placed{w.want.End, w.host, w.port})
}

func (w *work) verify() error {
	got, err := w.Observe(w.want)
	if err != nil {
		return err
	}
	if err := port.Diff(w.want, got); err != nil {
		return fmt.Errorf("%w: the new port is not as it was made, by somebody else or for want of something in the kernel: %w", ErrBusy, err)
	}
	return nil
}

func (w *work) undoLeg() error { return w.remove(w.a.ID) }
