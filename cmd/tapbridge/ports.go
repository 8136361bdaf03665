package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// row is one port as `tapbridge ports -o json` prints it.
type row struct {
	Port        string    `json:"port"`
	Bridge      string    `json:"bridge"`
	Mode        port.Mode `json:"mode"`
	Network     string    `json:"network"`
	ContainerID string    `json:"containerID"`
	IfName      string    `json:"ifname"`
	GuestMAC    string    `json:"guestMAC"`
	TapMAC      string    `json:"tapMAC"`
	MTU         int       `json:"mtu"` // the guest's
	asked
	table      port.Table   // kernel, or the kind of libvirt's entry
	State      attach.State `json:"state,omitempty"`      // with follow: waiting, or running
	Unfollowed bool         `json:"unfollowed,omitempty"` // with follow: no agent is there
	Mute       bool         `json:"mute,omitempty"`       // and the port is locked, so that its guest cannot say anything
	Carrier    *bool        `json:"carrier"`              // null: not known
	Redirect   string       `json:"redirect"`             // "": none, or not known; in mode tap, between pod interface and tap: bpf, or mirred where the kernel has or permits no bpf
	Promoted   string       `json:"promoted"`             // the tap on the host, while that is the port and there is no redirect; else ""
	Drift      []string     `json:"drift"`                // empty: as it should be
	InPod      []string     `json:"inPod,omitempty"`      // in mode veth: what somebody has changed in the pod, as KubeVirt's bindings do; no drift
	Unchecked  string       `json:"unchecked,omitempty"`
	Uplinks    []uplink     `json:"uplinks"` // of its bridge
}

// uplink is how the bridge reaches other machines.
type uplink struct {
	Name        string   `json:"name"`
	Promiscuous bool     `json:"promiscuous"`
	Because     []string `json:"because"` // what keeps it so: a few of the reasons

	line string // for the table
}

// Exit codes of ports.
const (
	allRight    = 0
	somethingIs = 1 // not as it should be
	cannotTell  = 2
)

const portsUsage = "usage: tapbridge ports [-o table|json]"

// ports lists the ports of the namespace.
func ports(args []string, stdout, stderr io.Writer) int {
	switch strings.Join(args, " ") {
	case "", "-o table":
		return listPorts(stdout, stderr, printTable)
	case "-o json":
		return listPorts(stdout, stderr, printJSON)
	case "-h", "--help", "help":
		fmt.Fprintln(stdout, portsUsage)
		return allRight
	}
	return misused(stderr, "ports", args, portsUsage)
}

// misused says what is wrong with arguments, and how it is right.
func misused(stderr io.Writer, command string, args []string, usage string) int {
	fmt.Fprintf(stderr, "tapbridge: %s takes no %q; %s\n", command, args, usage)
	return cannotTell
}

func listPorts(stdout, stderr io.Writer, print func(io.Writer, []row) error) int {
	rows, err := readPorts()
	if err == nil {
		err = print(stdout, rows)
	}
	if err != nil {
		fmt.Fprintf(stderr, "tapbridge: ports: %v\n", err)
		return cannotTell
	}
	code := allRight
	for _, r := range rows {
		if len(r.Drift) > 0 || r.Mute {
			return somethingIs
		}
		if r.Unchecked != "" && os.Geteuid() != 0 { // root may do without pods that nothing leads into
			code = cannotTell
		}
	}
	return code
}

func readPorts() ([]row, error) {
	site, err := attach.Open()
	if err != nil {
		return nil, err
	}
	defer site.Close()
	all, err := site.Inspect()
	if err != nil {
		return nil, err
	}
	rows := make([]row, len(all))
	uplinks := map[string][]uplink{}
	for i, p := range all {
		if _, known := uplinks[p.Bridge]; !known {
			if uplinks[p.Bridge], err = readUplinks(site, p.Bridge); err != nil {
				return nil, err
			}
		}
		rows[i] = describe(p)
		rows[i].Uplinks = uplinks[p.Bridge]
	}
	return rows, nil
}

// readUplinks knows of none where the port has lost its record.
func readUplinks(site *attach.Site, bridge string) ([]uplink, error) {
	if bridge == "" {
		return []uplink{}, nil
	}
	found, err := site.Uplinks(bridge)
	all := make([]uplink, len(found))
	for i, u := range found {
		all[i] = uplink{u.Name, u.Promiscuous, append([]string{}, u.Few()...), u.String()}
	}
	return all, err
}

func describe(p attach.Inspected) row {
	r := row{
		Port: p.Port.Name, Bridge: p.Bridge, Mode: p.Mode, table: p.Table,
		Network: p.Network, ContainerID: p.ContainerID, IfName: p.IfName,
		GuestMAC: p.Guest.String(), TapMAC: p.Port.MAC().String(), MTU: p.MTU,
		asked: askedOf(p.Attachment),
		State: p.State, Unfollowed: p.Unfollowed, Mute: p.Mute(), Carrier: p.Carrier, Drift: append([]string{}, p.Wrong()...),
	}
	if p.Guest.IsZero() {
		r.GuestMAC = ""
	}
	if p.Redirect != nil {
		r.Redirect = p.Redirect.String()
	}
	r.Promoted, r.InPod = p.Promoted, p.InPod
	if p.PodUnknown {
		r.Unchecked = "the pod's network namespace was not found or cannot be entered (are you root?): its side is not compared"
	}
	return r
}

func printTable(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PORT\tBRIDGE\tMODE\tREDIRECT\tTABLE\tGUEST MAC\tCARRIER\tNETWORK\tCONTAINER\tIFNAME\tSTATE")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Port, r.Bridge, r.Mode, r.way(), r.table,
			r.GuestMAC, r.carrier(), r.Network, short(r.ContainerID), r.IfName, r.state())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		for _, d := range r.Drift {
			fmt.Fprintf(w, "! %s: %s\n", r.Port, d)
		}
		if r.Unchecked != "" {
			fmt.Fprintf(w, "? %s: %s\n", r.Port, r.Unchecked)
		}
		for _, d := range r.InPod {
			fmt.Fprintf(w, "? %s: in the pod, as KubeVirt's bindings have it: %s\n", r.Port, d)
		}
		switch {
		case r.Mute:
			fmt.Fprintf(w, "? %s: no tapbridge-agent runs here: nobody follows its guest, which is mute until then\n", r.Port)
		case r.Unfollowed:
			fmt.Fprintf(w, "? %s: no tapbridge-agent runs here: nobody follows its guest\n", r.Port)
		}
	}
	printUplinks(w, rows)
	return nil
}

// printUplinks says of each promiscuous uplink what keeps it so. It is no drift:
// frames arrive, only too many of them.
func printUplinks(w io.Writer, rows []row) {
	said := map[string]bool{}
	for _, r := range rows {
		for _, u := range r.Uplinks {
			if u.Promiscuous && !said[u.line] {
				fmt.Fprintln(w, u.line)
			}
			said[u.line] = true
		}
	}
}

func (r row) state() string {
	switch {
	case len(r.Drift) > 0:
		return fmt.Sprintf("drift (%d)", len(r.Drift))
	case r.Mute:
		return "mute"
	case r.Unchecked != "" || len(r.InPod) > 0:
		return "ok on the host"
	case r.State != "":
		return "ok, " + string(r.State)
	}
	return "ok"
}

// way is how frames get from the port to the tap.
func (r row) way() string {
	if r.Promoted != "" {
		return "promoted"
	}
	return r.Redirect
}

func (r row) carrier() string {
	switch {
	case r.Carrier == nil:
		return "?"
	case *r.Carrier:
		return "yes"
	}
	return "no"
}

// short is what people know a container by.
func short(containerID string) string { return containerID[:min(len(containerID), 13)] }
