// Package port is about one thing: the port that an attachment should have on
// its bridge, and how it differs from the one that is there. It touches no
// kernel; package attach does.
package port

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/shape"
	"github.com/tapbridge/tapbridge/pkg/tap"
)

// Mode is what stands between the bridge port and the VMM.
type Mode string

// The modes.
const (
	Tap     Mode = "tap"      // veth pair, and a tap in the pod that it is redirected to
	Veth    Mode = "veth"     // veth pair alone
	HostTap Mode = "host-tap" // the tap is the port
)

// Modes lists all of them.
var Modes = []Mode{Tap, Veth, HostTap}

// Table is how the guest's MAC address gets into the bridge's forwarding
// database.
type Table string

// The tables. All but Kernel are libvirt's macTableManager "libvirt".
const (
	Kernel  Table = "kernel"  // the bridge learns and floods
	Sticky  Table = "sticky"  // an entry that no frame on another port can move
	Static  Table = "static"  // libvirt's own: a frame on a learning port moves it for good
	Roaming Table = "roaming" // an entry that moves with the guest, and comes back
	Follow  Table = "follow"  // that of Sticky, while the guest runs here: by the node agent
)

// ID identifies an attachment, as in the CNI specification.
type ID struct {
	ContainerID string
	IfName      string
}

// key is the identity as 12 hex digits, the same for an id whose container id a
// record has hashed.
func (id ID) key() string {
	sum := sha256.Sum256([]byte(digest(id.ContainerID) + "\x00" + id.IfName))
	return hex.EncodeToString(sum[:6])
}

// Is reports whether both are the same attachment, also when a record has hashed
// the container id of one.
func (id ID) Is(other ID) bool {
	return id.IfName == other.IfName && digest(id.ContainerID) == digest(other.ContainerID)
}

// Hashed reports whether the container id is what a record has made of a longer one: no
// CNI call can have it.
func (id ID) Hashed() bool { return strings.HasPrefix(id.ContainerID, digestMark) }

// portPrefix begins the name of every bridge port.
const portPrefix = "tb"

// PortName is the name of the bridge port, the same on every call.
func (id ID) PortName() string { return portPrefix + id.key() }

// IFBName is the name of the device that slows down what the guest sends.
func (id ID) IFBName() string { return portPrefix + "i" + id.key() }

// PromotedName is the name of the tap while it is the port.
func (id ID) PromotedName() string { return portPrefix + "t" + id.key() }

// Group is the link group of every device of the attachment: made from the last
// eight digits of the port's name, so that devices can be told to belong together
// without reading their alias.
func (id ID) Group() uint32 {
	group, ok := groupOf(id.key())
	if !ok {
		panic("port: a key that is not 12 hexadecimal digits")
	}
	return group
}

func groupOf(key string) (uint32, bool) {
	if len(key) != 12 {
		return 0, false
	}
	n, err := strconv.ParseUint(key[4:], 16, 32)
	return uint32(n)>>2 | 1<<30, err == nil // far from the small numbers that people use, and not negative to iproute2
}

// Marked reports whether a device of that name and group is a port of ours,
// whatever its alias says.
func Marked(name string, group uint32) bool {
	key, ours := strings.CutPrefix(name, portPrefix)
	want, ok := groupOf(key)
	return ours && ok && group == want
}

// TapName is the name of the tap in the pod.
func (id ID) TapName() string { return tap.Name(id.IfName) }

// Attachment is all that was decided about one guest NIC. Every device that is
// made for it carries it as a record (see Record), so the whole wanted port can
// be had back from the kernel alone.
type Attachment struct {
	ID
	Network string
	Bridge  string
	Mode    Mode
	Table   Table
	Guest   mac.Addr
	MTU     int // of the guest, in bytes
	PortMTU int // of the bridge port: the bridge's when it joined, in bytes
	VLANs   bridge.VLANs
	Options
	Access     tap.Access // Anyone, Anyone in mode veth
	Label      string     // SELinux context that creates the tap; not in the record: the kernel does not tell it
	Masquerade bool       // the node has rules for the guest's addresses, which go with the port

	ToGuest, FromGuest shape.Limit
}

// Options are what a user switches on: flags of the port, and more.
type Options struct {
	Isolated bool // portIsolation
	Hairpin  bool // hairpinMode
	Locked   bool // macspoofchk
	Guarded  bool // ipSpoofChk
	DAN      bool // dan
	Promote  bool // promote
}

// digestMark begins a digest, and no valid CNI name or container id.
const digestMark = "#"

// digest stands in for a name that is too long. That of a digest is itself.
func digest(name string) string {
	if strings.HasPrefix(name, digestMark) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return digestMark + hex.EncodeToString(sum[:10])
}
