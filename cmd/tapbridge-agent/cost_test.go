package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/bridge"
	"github.com/tapbridge/tapbridge/pkg/mac"
	"github.com/tapbridge/tapbridge/pkg/shape"
)

// BenchmarkNode is an agent on a node with 500 ports of mode tap, each in a pod of
// its own. It compares everything every second, the host's sides at one go: the idle
// CPU at the usual interval is a thirtieth of that.
func BenchmarkNode(b *testing.B) {
	const ports, span = 500, 20 * time.Second
	host := nstest.New(b)
	nstest.Bridge(b, host, "br0", "02:00:00:00:00:01")
	for i := range ports {
		populate(b, host, nstest.New(b), i)
	}
	for b.Loop() {
		p := start(b, host, "-interval", "1s")
		p.awaitStart(b)
		before, sum, count := p.cpu(b), value(b, host, "_sum"), value(b, host, "_count")
		time.Sleep(span)
		spent := p.cpu(b) - before
		b.ReportMetric(1000*(value(b, host, "_sum")-sum)/(value(b, host, "_count")-count), "ms/full-comparison")
		b.ReportMetric(float64(spent.Milliseconds())/span.Seconds(), "cpu-ms/comparison")
		b.ReportMetric(p.rss(b), "rss-MB")
		_ = p.end(b, syscall.SIGTERM)
		b.Log(p.log.String())
	}
}

// value is one of the agent's own measurements of its comparisons.
func value(b *testing.B, host *nstest.NS, suffix string) float64 {
	b.Helper()
	name := "\ntapbridge_agent_full_comparison_seconds" + suffix + " "
	_, rest, _ := strings.Cut(awaitAnswer(b, host, "/metrics"), name)
	word, _, _ := strings.Cut(rest, "\n")
	v, err := strconv.ParseFloat(word, 64)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

func populate(b *testing.B, host, pod *nstest.NS, i int) {
	b.Helper()
	a := wish(i)
	a.Guest, a.FromGuest = mac.Addr{0x52, 0x54, 0, 0, byte(i >> 8), byte(i)}, shape.Limit{}
	host.Do(func() {
		site, err := attach.OpenPod(pod.Path)
		if err != nil {
			b.Fatal(err)
		}
		defer site.Close()
		br, err := bridge.Find(site.Host(), a.Bridge)
		if err == nil {
			err = site.Apply(a, br)
		}
		if err != nil {
			b.Fatal(err)
		}
	})
}

// cpu is what the process has used, in user and kernel together (proc_pid_stat(5)).
func (p *agentProcess) cpu(b *testing.B) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	const user, system, tick = 11, 12, 10 * time.Millisecond
	u, _ := strconv.Atoi(fields[user])
	s, _ := strconv.Atoi(fields[system])
	return time.Duration(u+s) * tick
}

func (p *agentProcess) rss(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kB, _ := strconv.Atoi(strings.Fields(rest)[0])
	return float64(kB) / 1024
}
