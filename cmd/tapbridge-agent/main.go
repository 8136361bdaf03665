// Command tapbridge-agent keeps the ports that tapbridge has made as they should
// be, for as long as they are there. It runs in the bridges' network namespace,
// one a node, and ends with SIGTERM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tapbridge/tapbridge/pkg/agent"
)

// version is set when the binary is linked.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes.
const (
	ended = iota
	failed
	misused
)

// run logs to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("tapbridge-agent", flag.ContinueOnError)
	flags.SetOutput(stderr)
	o := agent.Options{}
	flags.DurationVar(&o.Interval, "interval", 30*time.Second, "`time` between two comparisons of every port; what events tell of is compared at once")
	flags.BoolVar(&o.ObserveOnly, "observe-only", false, "report what is not as it should be, and change nothing")
	format := flags.String("log-format", "text", "text or json")
	showVersion := flags.Bool("version", false, "print the version and end")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return ended
		}
		return misused
	}
	if *showVersion {
		fmt.Fprintf(stdout, "tapbridge-agent %s\n", version)
		return ended
	}
	handler, err := logTo(stderr, *format)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("arguments %q: want flags only", flags.Args())
	}
	if err == nil {
		err = o.Check()
	}
	if err != nil {
		fmt.Fprintf(stderr, "tapbridge-agent: %v; try: tapbridge-agent -h\n", err)
		return misused
	}
	o.Log = slog.New(handler)
	return keep(ctx, o)
}

func keep(ctx context.Context, o agent.Options) int {
	o.Log.Info("tapbridge-agent", "version", version)
	if err := agent.Run(ctx, o); err != nil {
		o.Log.Error("cannot go on", "error", err)
		return failed
	}
	return ended
}

func logTo(w io.Writer, format string) (slog.Handler, error) {
	switch format {
	case "text":
		return slog.NewTextHandler(w, nil), nil
	case "json":
		return slog.NewJSONHandler(w, nil), nil
	}
	return nil, fmt.Errorf("log-format %q: want text or json", format)
}
