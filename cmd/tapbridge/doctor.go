package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/tapbridge/tapbridge/pkg/config"
	"github.com/tapbridge/tapbridge/pkg/doctor"
)

const doctorUsage = "usage: tapbridge doctor [BRIDGE] [-o table|json]"

// examine prints what the doctor finds. Its exit codes are those of ports.
func examine(args []string, stdout, stderr io.Writer) int {
	bridge := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") && args[0] != "help" {
		bridge, args = args[0], args[1:]
	}
	print := printFindings
	switch strings.Join(args, " ") {
	case "", "-o table":
	case "-o json":
		print = printJSON
	case "-h", "--help", "help":
		fmt.Fprintln(stdout, doctorUsage)
		return allRight
	default:
		return misused(stderr, "doctor", args, doctorUsage)
	}
	return examineBridge(bridge, print, stdout, stderr)
}

func examineBridge(bridge string, print func(io.Writer, []doctor.Finding) error, stdout, stderr io.Writer) int {
	var found []doctor.Finding
	var err error
	if bridge != "" {
		err = config.CheckInterfaceName(bridge)
	}
	if err == nil {
		found, err = doctor.Examine(bridge)
		err = doctor.Permitted(err)
	}
	if err == nil {
		err = print(stdout, found)
	}
	if err != nil {
		fmt.Fprintf(stderr, "tapbridge: doctor: %v\n", err)
		return cannotTell
	}
	for _, f := range found {
		if f.Level == doctor.Bad {
			return somethingIs
		}
	}
	return allRight
}

// printJSON leaves & and < as they are: commands are to be pasted.
func printJSON[T any](w io.Writer, v T) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printFindings puts what can be done under what is wrong.
func printFindings(w io.Writer, found []doctor.Finding) (err error) {
	for _, f := range found {
		_, err = fmt.Fprintf(w, "%-4s  %s: %s\n", f.Level, f.Object, f.Says)
		if f.Remedy != "" && err == nil {
			_, err = fmt.Fprintf(w, "      -> %s\n", f.Remedy)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
