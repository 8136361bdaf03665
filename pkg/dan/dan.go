// Package dan describes a guest's NIC to Kata's runtime-rs, which attaches taps
// of the host's namespace to its VM ("directly attachable network"): one JSON
// file a sandbox. The tap itself is the business of packages tap and attach.
package dan

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/tapbridge/tapbridge/pkg/mac"
)

// Folder holds one file a sandbox, named after it.
type Folder string

// Kata is where runtime-rs looks by default (runtime.dan_conf of its
// configuration).
const Kata Folder = "/run/kata-containers/dans"

// ErrFile says that a sandbox's file is not one that a NIC can be added to.
var ErrFile = errors.New("the file of the sandbox is in the way")

// NIC is one device of a sandbox's file. Sandbox and Tap identify it: no two
// attachments have a tap of one name.
type NIC struct {
	Sandbox   string // the container id
	Tap       string // as it is called in the host's namespace
	Name      string // in the guest
	MAC       mac.Addr
	MTU       int      // bytes
	Addresses []string // CIDR
	Routes    []Route
}

// Route is one of the guest's.
type Route struct {
	Dest    string // CIDR; "" is everywhere, when there is a gateway
	Gateway string // "" when on link
	Scope   int    // as the kernel counts
	MTU     int    // bytes; 0 is the NIC's
}

func (r Route) String() string {
	text := r.Dest
	if text == "" {
		text = "default"
	}
	if r.Gateway != "" {
		text += " via " + r.Gateway
	}
	if r.Scope != 0 {
		text += fmt.Sprintf(" scope %d", r.Scope)
	}
	if r.MTU != 0 {
		text += fmt.Sprintf(" mtu %d", r.MTU)
	}
	return text
}

// Write puts the NIC into its sandbox's file, in place of an earlier
// description of it. Devices that others have put there stay. Errors: ErrFile,
// unix.EAGAIN when the folder is locked for too long, and what the kernel says.
func (f Folder) Write(n NIC) error {
	dir, err := f.prepare()
	if err != nil {
		return err
	}
	defer dir.Close()
	content, err := dir.read(n.Sandbox)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s: %w", ErrFile, dir.path(n.Sandbox), err)
	}
	devices, err := parse(content)
	if err != nil {
		return fmt.Errorf("%w: %s: %w: repair or remove it", ErrFile, dir.path(n.Sandbox), err)
	}
	if err := devices.put(n); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrFile, dir.path(n.Sandbox), err)
	}
	return dir.replace(n.Sandbox, devices.text())
}

// Read finds the NIC of a tap; nil when it is not described. Error: ErrFile.
func (f Folder) Read(sandbox, tap string) (*NIC, error) {
	dir, err := f.open()
	if err != nil {
		return nil, missing(err)
	}
	defer dir.Close()
	content, err := dir.read(sandbox)
	if err != nil {
		return nil, missing(err)
	}
	devices, err := parse(content)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFile, dir.path(sandbox), err)
	}
	return devices.find(sandbox, tap), nil
}

// Remove takes the NIC of a tap out of its sandbox's file, and the file away
// when nothing else was in it. What is missing, or has never been ours, is
// success. Errors: ErrFile when the file speaks of the tap but cannot be
// understood, unix.EAGAIN as with Write.
func (f Folder) Remove(sandbox, tap string) error {
	dir, err := f.open()
	if err != nil {
		return missing(err)
	}
	defer dir.Close()
	if err := dir.lock(); err != nil {
		return err
	}
	content, err := dir.read(sandbox)
	if err != nil || !bytes.Contains(content, []byte(tap)) {
		return errors.Join(dir.tidy(sandbox), missing(err))
	}
	devices, err := parse(content)
	if err != nil {
		return fmt.Errorf("%w: %s: %w: take %s out of it, or remove it", ErrFile, dir.path(sandbox), err, tap)
	}
	switch was := devices.count(); {
	case !devices.drop(tap):
		return nil
	case was == 1:
		return errors.Join(dir.tidy(sandbox), dir.remove(sandbox))
	}
	return dir.replace(sandbox, devices.text())
}

// missing makes success of what is not there, or is nothing that we could have
// written.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errStranger) {
		return nil
	}
	return err
}
