package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// row is one port as `tapbridge ports -o json` prints it.
type row struct {
	Port        string     `json:"port"`
	Bridge      string     `json:"bridge"`
	Mode        port.Mode  `json:"mode"`
	Table       port.Table `json:"table"` // kernel, or libvirt's sticky, static, roaming
	Network     string     `json:"network"`
	ContainerID string     `json:"containerID"`
	IfName      string     `json:"ifname"`
	GuestMAC    mac.Addr   `json:"guestMAC"`
	TapMAC      mac.Addr   `json:"tapMAC"`
	Carrier     bool       `json:"carrier"`
	Drift       []string   `json:"drift"` // empty: as it should be
	Unchecked   string     `json:"unchecked,omitempty"`
}

// ports lists the ports of the namespace. Exit code 1: a port is not as it
// should be.
func ports(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("tapbridge ports", flag.ContinueOnError)
	flags.SetOutput(stderr)
	format := flags.String("o", "table", "table or json")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || *format != "table" && *format != "json" {
		fmt.Fprintln(stderr, "usage: tapbridge ports [-o table|json]")
		return 2
	}
	rows, err := readPorts()
	if err == nil {
		err = printPorts(stdout, rows, *format)
	}
	if err != nil {
		fmt.Fprintf(stderr, "tapbridge: ports: %v\n", err)
		return 1
	}
	for _, r := range rows {
		if len(r.Drift) > 0 {
			return 1
		}
	}
	return 0
}

func readPorts() ([]row, error) {
	site, err := attach.Open()
	if err != nil {
		return nil, err
	}
	defer site.Close()
	all, err := site.Inspect()
	rows := make([]row, len(all))
	for i, p := range all {
		rows[i] = describe(p)
	}
	return rows, err
}

func describe(p attach.Inspected) row {
	r := row{
		Port: p.PortName(), Bridge: p.Bridge, Mode: p.Mode, Table: p.Table,
		Network: p.Network, ContainerID: p.ContainerID, IfName: p.IfName,
		GuestMAC: p.Guest, TapMAC: p.Guest.Derived(), Carrier: p.Carrier, Drift: []string{},
	}
	if p.Unreachable {
		r.Unchecked = "the pod's network namespace cannot be found: its side is not compared"
	}
	var drift *port.Drift
	if errors.As(p.Drift, &drift) {
		r.Drift = drift.Differences
	}
	return r
}

func printPorts(w io.Writer, rows []row, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(rows)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PORT\tBRIDGE\tMODE\tTABLE\tGUEST MAC\tTAP MAC\tCARRIER\tNETWORK\tCONTAINER\tIFNAME\tSTATE")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Port, r.Bridge, r.Mode, r.Table,
			r.GuestMAC, r.TapMAC, yesNo(r.Carrier), r.Network, short(r.ContainerID), r.IfName, r.state())
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
	}
	return nil
}

func (r row) state() string {
	switch {
	case len(r.Drift) > 0:
		return fmt.Sprintf("drift (%d)", len(r.Drift))
	case r.Unchecked != "":
		return "ok on the host"
	}
	return "ok"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// short is what people know a container by.
func short(containerID string) string { return containerID[:min(len(containerID), 13)] }
