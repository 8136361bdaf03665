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
	"github.com/tapbridge/tapbridge/pkg/sandbox"
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

// settings are what the flags say.
type settings struct {
	agent.Options
	metrics, format, runtime string
	version                  bool
}

// flags is where every default is. docs/agent.md has the same table.
func (s *settings) flags() *flag.FlagSet {
	f := flag.NewFlagSet("tapbridge-agent", flag.ContinueOnError)
	s.Interval, s.SweepAfter = 30*time.Second, 5*time.Minute
	f.Var((*span)(&s.Interval), "interval", "`time` between two comparisons of every port, at least 1s; what the kernel tells of is compared at once")
	f.BoolVar(&s.ObserveOnly, "observe-only", false, "report what is not as it should be, and change nothing")
	f.StringVar(&s.metrics, "metrics", "127.0.0.1:9470", "`address` for /metrics, /healthz and /readyz; empty: none")
	f.StringVar(&s.runtime, "runtime-endpoint", "", "`endpoint` of the container runtime, such as unix:///run/containerd/containerd.sock, which is asked for its sandboxes; empty: no port is swept")
	f.Var((*span)(&s.SweepAfter), "sweep-after", "`time` that the runtime has not known a port's sandbox before the port is removed, at least 1s")
	f.StringVar(&s.format, "log-format", "text", "text or json; the log goes to stderr")
	f.BoolVar(&s.version, "version", false, "print the version and end")
	return f
}

// span is a time whose error tells how to write one: that of flag.DurationVar does not.
type span time.Duration

func (s *span) String() string { return time.Duration(*s).String() }

func (s *span) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("want a number with its unit, such as 30s or 5m")
	}
	*s = span(d)
	return nil
}

// run logs to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var s settings
	flags := s.flags()
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stderr)
		flags.Usage()
		return ended
	case err == nil && s.version:
		fmt.Fprintf(stdout, "tapbridge-agent %s\n", version)
		return ended
	case err == nil:
		err = s.check(flags, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "tapbridge-agent: %v; try: tapbridge-agent -h\n", err)
		return misused
	}
	return s.keep(ctx)
}

// check also opens the log, and the way to the runtime.
func (s *settings) check(flags *flag.FlagSet, stderr io.Writer) error {
	if flags.NArg() > 0 {
		return fmt.Errorf("arguments %q: want flags only", flags.Args())
	}
	handler, err := logTo(stderr, s.format)
	if err != nil {
		return err
	}
	s.Log = slog.New(handler)
	if s.runtime != "" {
		r, err := sandbox.Open(s.runtime)
		if err != nil {
			return err
		}
		s.Sandboxes = r.IDs
	}
	err = s.Check()
	flags.Visit(func(f *flag.Flag) {
		if f.Name == "sweep-after" && s.runtime == "" {
			err = errors.New("-sweep-after needs -runtime-endpoint: nothing is swept without")
		}
	})
	return err
}

func (s *settings) keep(ctx context.Context) int {
	s.Log.Info("tapbridge-agent", "version", version)
	if err := openSysctls(); err != nil && !s.ObserveOnly {
		s.Log.Warn("IPv6 that is turned on again on a port cannot be turned off", "error", err)
	}
	var err error
	if s.metrics != "" {
		err = serve(ctx, s.metrics, observed(&s.Options), s.Log)
	}
	if err == nil {
		err = agent.Run(ctx, s.Options)
	}
	if errors.Is(err, syscall.EPERM) {
		err = fmt.Errorf("%w (it must be run by root, with the capabilities that docs/agent.md lists)", err)
	}
	if err != nil {
		s.Log.Error("cannot go on", "error", err)
		return failed
	}
	return ended
}

func logTo(w io.Writer, format string) (slog.Handler, error) {
	switch format {
	case "text":
		return slog.NewTextHandler(w, nil), nil
	case "json":
		return slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: spell}), nil
	}
	return nil, fmt.Errorf("log-format %q: want text or json", format)
}

// spell writes a duration in JSON as in text: of itself slog tells nanoseconds.
func spell(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
