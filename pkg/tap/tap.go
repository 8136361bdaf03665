// Package tap makes the tap device that a VMM opens, and says who may open it.
// What the tap is connected to is the business of packages bridge and redirect.
package tap

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/remedy"
	"github.com/tapbridge/tapbridge/internal/rtnl"
	"github.com/tapbridge/tapbridge/pkg/mac"
)

// Kind is what the kernel calls the link kind of taps.
const Kind = "tun"

// Device is where the kernel hands out taps.
const Device = "/dev/net/tun"

// ErrNoDevice says that Device is missing, closed to us, or something else. It comes with
// its remedy.
var ErrNoDevice = errors.New("no tap can be made on this node")

// Anyone as an owner or a group leaves that condition out.
const Anyone = -1

// Access says who may open a tap without CAP_NET_ADMIN, and how. Owner and
// group must both match (drivers/net/tun.c, tun_not_capable).
type Access struct {
	Owner      int64 // uid, or Anyone
	Group      int64 // gid, or Anyone
	MultiQueue bool  // every opener must ask for the same
}

// Tap is a tap to be made.
type Tap struct {
	Name string
	MAC  mac.Addr
	MTU  int // bytes
	Access
	Label string // SELinux context that creates it; "": our own
}

// Name is the tap's name for a pod interface. KubeVirt looks for exactly this
// name, and the target of a live migration finds the tap by it, so it can never
// change.
func Name(ifName string) string {
	if len(ifName) > 3 {
		return "tap" + ifName[3:]
	}
	return "tap" + ifName
}

// Add makes a tap in the namespace of c, marked as ours, and returns its index.
// The tap becomes persistent last: whatever ends this function earlier, a kill
// included, takes the tap with it. Error: ErrNoDevice.
func Add(c *rtnl.Conn, t Tap, m rtnl.Mark) (int, error) {
	queue, err := open(c, t)
	if err != nil {
		return 0, err
	}
	defer queue.Close()
	link, err := c.LinkNamed(t.Name)
	if err != nil {
		return 0, err
	}
	attrs := append(m.Attributes(),
		nl.NewRtAttr(unix.IFLA_ADDRESS, t.MAC.HardwareAddr()),
		nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(t.MTU))))
	if err := c.SetLink(link.Index, attrs...); err != nil {
		return 0, fmt.Errorf("set MAC %s and MTU %d of tap %q: %w", t.MAC, t.MTU, t.Name, err)
	}
	if err := keep(queue, t.Access); err != nil {
		return 0, fmt.Errorf("tap %q: %w", t.Name, err)
	}
	return link.Index, nil
}

// open creates the tap. A tap belongs to the namespace in which /dev/net/tun is
// opened; every later call works from anywhere.
func open(c *rtnl.Conn, t Tap) (queue *os.File, err error) {
	err = c.Inside(func() (err error) {
		queue, err = openDevice()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create tap %q: %w", t.Name, err)
	}
	if t.Label == "" {
		err = attach(queue, t.Name, t.MultiQueue)
	} else {
		err = attachAs(t.Label, queue, t.Name, t.MultiQueue)
	}
	if errors.Is(err, unix.ENOTTY) {
		err = isNoDevice(err)
	}
	if err != nil {
		return nil, errors.Join(err, queue.Close())
	}
	return queue, nil
}

func openDevice() (*os.File, error) {
	fd, err := unix.Open(Device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, isNoDevice(fmt.Errorf("open %s: %w", Device, err))
	}
	return os.NewFile(uintptr(fd), Device), nil
}

// absent are the answers where the module or the file is missing, where a container or a
// mount does not let us open it, and of something else in its place.
var absent = []error{unix.ENOENT, unix.ENXIO, unix.ENODEV, unix.EACCES, unix.EPERM, unix.ENOTTY}

// isNoDevice leaves an error alone that will be another one next time.
func isNoDevice(err error) error {
	if slices.ContainsFunc(absent, func(e error) bool { return errors.Is(err, e) }) {
		return remedy.With(fmt.Errorf("%w: %w", ErrNoDevice, err), "load the tun module (modprobe tun), and give the plugin "+Device)
	}
	return err
}

// attach insists on a new device: without IFF_TUN_EXCL the kernel would hand
// out whatever tap has that name, whoever owns it.
func attach(queue *os.File, name string, multiQueue bool) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("name tap %q: %w", name, err)
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
	if multiQueue {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	err = unix.IoctlIfreq(int(queue.Fd()), unix.TUNSETIFF, req)
	if errors.Is(err, unix.EBUSY) {
		err = unix.EEXIST // TUNSETIFF's word for a name that is taken
	}
	if err != nil {
		return fmt.Errorf("create tap %q: %w", name, err)
	}
	return nil
}

// keep gives the tap its owner and makes it outlive queue.
func keep(queue *os.File, a Access) error {
	fd := int(queue.Fd())
	if a.Owner != Anyone {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, int(a.Owner)); err != nil {
			return fmt.Errorf("set owner %d: %w", a.Owner, err)
		}
	}
	if a.Group != Anyone {
		if err := unix.IoctlSetInt(fd, unix.TUNSETGROUP, int(a.Group)); err != nil {
			return fmt.Errorf("set group %d: %w", a.Group, err)
		}
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("make persistent: %w", err)
	}
	return nil
}

// AccessOf reads who may open the tap that l describes; false when l is no
// persistent tap.
func AccessOf(l rtnl.Link) (Access, bool) {
	kind, _ := l.Data.Uint8(nl.IFLA_TUN_TYPE)
	persistent, _ := l.Data.Uint8(nl.IFLA_TUN_PERSIST)
	if l.Kind != Kind || kind != unix.IFF_TAP || persistent == 0 {
		return Access{}, false
	}
	queues, _ := l.Data.Uint8(nl.IFLA_TUN_MULTI_QUEUE)
	return Access{
		Owner:      id(l.Data.Uint32(nl.IFLA_TUN_OWNER)),
		Group:      id(l.Data.Uint32(nl.IFLA_TUN_GROUP)),
		MultiQueue: queues == 1,
	}, true
}

// id is Anyone where the kernel sends none.
func id(v uint32, sent bool) int64 {
	if !sent {
		return Anyone
	}
	return int64(v)
}

// Available reports why no tap could be made, if so: ErrNoDevice. It makes none.
func Available() error {
	f, err := openDevice()
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := unix.IoctlGetUint32(int(f.Fd()), unix.TUNGETFEATURES); err != nil {
		return isNoDevice(fmt.Errorf("%s is something else: %w", Device, err))
	}
	return nil
}
