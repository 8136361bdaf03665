package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tapbridge/tapbridge/pkg/agent"
)

// stall is how long a turn of the agent's loop may take beyond the interval. Each
// wait in it is bounded by far less.
const stall = 30 * time.Second

// observed gives the agent its metrics and returns who tells them over HTTP.
func observed(o *agent.Options) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(buildInfo(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	o.Metrics, o.Health = agent.NewMetrics(r), &agent.Health{}
	health, within := o.Health, o.Interval+stall
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	mux.Handle("GET /healthz", answer(func() bool { return health.Alive(within) }, fmt.Sprintf("the agent has not got on for %v", within)))
	mux.Handle("GET /readyz", answer(health.Ready, "the first comparison of every port is not done"))
	return mux
}

func buildInfo() prometheus.Collector {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "tapbridge_agent_build_info", Help: "1; the labels tell which agent this is.",
	}, []string{"version", "goversion"})
	info.WithLabelValues(version, runtime.Version()).Set(1)
	return info
}

func answer(well func() bool, otherwise string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if !well() {
			http.Error(w, otherwise, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// serve answers at address until ctx ends. What is asked here is short, so whoever
// keeps a connection for long is cut off.
func serve(ctx context.Context, address string, h http.Handler, log *slog.Logger) error {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w (another agent may be running: end one of them, or give another address by -metrics)", err)
	}
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	const patience = 10 * time.Second
	server := &http.Server{Handler: h, ReadTimeout: patience, WriteTimeout: patience, IdleTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are not told any more", "error", err)
		}
	}()
	log.Info("metrics", "address", l.Addr().String())
	return nil
}
