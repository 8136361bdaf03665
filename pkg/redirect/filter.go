package redirect

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/internal/rtnl"
)

// ingress is the hook at which a device hands over what it has received.
var ingress = netlink.MakeHandle(0xffff, 0)

func addIngress(c *rtnl.Conn, index int) error {
	qdisc := &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Handle: ingress, Parent: netlink.HANDLE_INGRESS}
	if err := c.Change(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, qdisc, kind("ingress")); err != nil {
		return fmt.Errorf("add ingress qdisc: %w", err)
	}
	return nil
}

func kind(name string) *nl.RtAttr { return nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(name)) }

// addMirred takes u32 with a match that is always true, because cls_matchall is
// not in every kernel.
func addMirred(c *rtnl.Conn, from, to int) error {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_U32_SEL, (&nl.TcU32Sel{Flags: nl.TC_U32_TERMINAL, Nkeys: 1, Keys: make([]nl.TcU32Key, 1)}).Serialize())
	action := options.AddRtAttr(nl.TCA_U32_ACT, nil).AddRtAttr(nl.TCA_ACT_TAB, nil)
	action.AddRtAttr(nl.TCA_ACT_KIND, nl.ZeroTerminated(actionMirred))
	steal := make([]byte, sizeofMirred)
	binary.NativeEndian.PutUint32(steal[atVerdict:], uint32(netlink.TC_ACT_STOLEN))
	binary.NativeEndian.PutUint32(steal[atAction:], uint32(netlink.TCA_EGRESS_REDIR))
	binary.NativeEndian.PutUint32(steal[atDevice:], uint32(to))
	action.AddRtAttr(nl.TCA_ACT_OPTIONS, nil).AddRtAttr(nl.TCA_MIRRED_PARMS, steal)
	if err := addFilter(c, from, kindU32, options); err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	return nil
}

// addProgram makes the program behind fd decide what becomes of each frame. It
// lives as long as the filter, and that as long as the device.
func addProgram(c *rtnl.Conn, index int, name string, fd int) error {
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_BPF_FD, nl.Uint32Attr(uint32(fd)))
	options.AddRtAttr(nl.TCA_BPF_NAME, nl.ZeroTerminated(name))
	options.AddRtAttr(nl.TCA_BPF_FLAGS, nl.Uint32Attr(nl.TCA_BPF_FLAG_ACT_DIRECT))
	if err := addFilter(c, index, kindBPF, options); err != nil {
		return fmt.Errorf("add filter %q: %w", name, err)
	}
	return nil
}

const kindU32, kindBPF, actionMirred = "u32", "bpf", "mirred"

// struct tc_mirred; the library takes it for larger than it is.
const sizeofMirred, atVerdict, atAction, atDevice = 28, 8, 20, 24

// addFilter adds one that sees all frames first.
func addFilter(c *rtnl.Conn, index int, kindOf string, options *nl.RtAttr) error {
	first := &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: ingress, Info: netlink.MakeHandle(1, nl.Swap16(unix.ETH_P_ALL))}
	return c.Change(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, first, kind(kindOf), options)
}

// filter is one as the kernel shows it.
type filter struct {
	kind     string
	protocol uint16
	options  rtnl.Attributes
}

// mostFilters is more than there are before the first one that decides, where those that
// this package makes are in place. Behind them somebody in the pod may have put any
// number.
const mostFilters = 16

// firstFilter is the one that decides about each frame; without a kind when there
// is none.
func firstFilter(c *rtnl.Conn, index int) (filter, error) {
	msgs, err := c.DumpSome(mostFilters, unix.RTM_GETTFILTER, unix.RTM_NEWTFILTER, &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: ingress})
	for _, msg := range msgs {
		f, parseErr := parseFilter(msg)
		if parseErr != nil || f.decides() {
			return f, parseErr
		}
	}
	if err != nil {
		err = fmt.Errorf("list the filters of link %d: %w", index, err)
	}
	return filter{}, err
}

func parseFilter(msg []byte) (f filter, err error) {
	if len(msg) < nl.SizeofTcMsg {
		return f, fmt.Errorf("parse a filter: %d bytes: %w", len(msg), unix.EPROTO)
	}
	attrs, err := rtnl.ParseAttributes(msg[nl.SizeofTcMsg:])
	if err == nil {
		f.kind = unix.ByteSliceToString(attrs.Get(nl.TCA_KIND))
		f.protocol = nl.Swap16(uint16(nl.DeserializeTcMsg(msg).Info))
		f.options, err = rtnl.ParseAttributes(attrs.Get(nl.TCA_OPTIONS))
	}
	if err != nil {
		return f, fmt.Errorf("parse a filter: %w", err)
	}
	return f, nil
}

// decides tells a filter from what the kernel shows before it: the kind's head
// without options, and the hash table of u32.
func (f filter) decides() bool {
	if f.kind == kindU32 {
		return f.options.Get(nl.TCA_U32_SEL) != nil
	}
	return len(f.options) > 0
}

func (f filter) isMirred(to int) bool {
	return f.kind == kindU32 && f.protocol == unix.ETH_P_ALL && matchesAll(f.options.Get(nl.TCA_U32_SEL)) && redirects(f.options.Get(nl.TCA_U32_ACT), to)
}

// matchesAll reads a struct tc_u32_sel: its keys are 16 bytes, of which 4 are the
// mask.
func matchesAll(selector []byte) bool {
	if len(selector) < nl.SizeofTcU32Sel {
		return false
	}
	for keys := selector[nl.SizeofTcU32Sel:]; len(keys) >= nl.SizeofTcU32Key; keys = keys[nl.SizeofTcU32Key:] {
		if binary.NativeEndian.Uint32(keys) != 0 {
			return false
		}
	}
	return true
}

// redirects reports whether to send it there is all that is done.
func redirects(actions []byte, to int) bool {
	n := 0
	var first []byte
	err := rtnl.EachAttribute(actions, func(_ uint16, action []byte) { n, first = n+1, action })
	if err != nil || n != 1 {
		return false
	}
	only, err := rtnl.ParseAttributes(first)
	if err != nil || unix.ByteSliceToString(only.Get(nl.TCA_ACT_KIND)) != actionMirred {
		return false
	}
	options, err := rtnl.ParseAttributes(only.Get(nl.TCA_ACT_OPTIONS))
	m := options.Get(nl.TCA_MIRRED_PARMS)
	return err == nil && len(m) >= sizeofMirred &&
		binary.NativeEndian.Uint32(m[atAction:]) == uint32(netlink.TCA_EGRESS_REDIR) && binary.NativeEndian.Uint32(m[atDevice:]) == uint32(to)
}

// is reports whether f runs p for every frame.
func (p program) is(f filter) bool {
	flags, _ := f.options.Uint32(nl.TCA_BPF_FLAGS)
	return f.kind == kindBPF && f.protocol == unix.ETH_P_ALL && flags&nl.TCA_BPF_FLAG_ACT_DIRECT != 0 &&
		unix.ByteSliceToString(f.options.Get(nl.TCA_BPF_NAME)) == p.name
}
