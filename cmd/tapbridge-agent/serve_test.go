package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/agent"
)

// ask asks an agent in a namespace, as kubelet and Prometheus do.
func ask(t testing.TB, ns *nstest.NS, path string) (code int, text string, err error) {
	t.Helper()
	ns.Do(func() {
		var conn net.Conn
		if conn, err = net.Dial("tcp", "127.0.0.1:9470"); err != nil {
			return
		}
		client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
		defer client.CloseIdleConnections()
		var answer *http.Response
		if answer, err = client.Get("http://agent" + path); err != nil {
			return
		}
		defer answer.Body.Close()
		body, readErr := io.ReadAll(answer.Body)
		code, text, err = answer.StatusCode, string(body), readErr
	})
	return code, text, err
}

// awaitAnswer waits for one that is well.
func awaitAnswer(t testing.TB, ns *nstest.NS, path string) string {
	t.Helper()
	var code int
	var text string
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if code, text, err = ask(t, ns, path); err == nil && code == http.StatusOK {
			return text
		}
	}
	t.Fatalf("%s: %d %s: %v", path, code, text, err)
	return ""
}

// By default the agent answers on the loopback, and nowhere else.
func TestMetricsAreServed(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	p := start(t, ns)
	for path, want := range map[string]string{
		"/readyz": "ok", "/healthz": "ok",
		"/metrics": `tapbridge_agent_build_info{goversion="go1.`,
	} {
		if text := awaitAnswer(t, ns, path); !strings.Contains(text, want) {
			t.Errorf("%s answers %q, want %q in it", path, text, want)
		}
	}
	if code, _, err := ask(t, ns, "/debug/pprof/"); err != nil || code != http.StatusNotFound {
		t.Errorf("another path: %d, %v", code, err)
	}
	if listening := ns.Run(t, "ss", "-Hltn"); strings.Count(listening, "\n") != 1 || !strings.Contains(listening, "127.0.0.1:9470 ") {
		t.Errorf("it listens at\n%s", listening)
	}
	taken := start(t, ns)
	if err := taken.Wait(); err == nil || !strings.Contains(taken.log.String(), "address already in use (another agent may be running") {
		t.Errorf("a second one: %v: %s", err, &taken.log)
	}
	quiet := start(t, nstest.New(t), "-metrics", "")
	quiet.awaitStart(t)
	for _, p := range []*agentProcess{p, quiet} {
		if err := p.end(t, syscall.SIGTERM); err != nil {
			t.Errorf("%v: %s", err, &p.log)
		}
	}
}

// Before the first comparison nothing is well.
func TestNotYetWell(t *testing.T) {
	t.Parallel()
	h := observed(&agent.Options{Interval: time.Second})
	for path, want := range map[string]string{
		"/healthz": "the agent has not got on for 31s",
		"/readyz":  "the first comparison of every port is not done",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if got := fmt.Sprint(w.Code, " ", strings.TrimSpace(w.Body.String())); got != "503 "+want {
			t.Errorf("%s answers %q, want %q", path, got, want)
		}
	}
}
