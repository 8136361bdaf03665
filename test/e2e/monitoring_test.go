package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/tapbridge/tapbridge/test/deploy"
)

// A real Prometheus scrapes the agent, with the rules of deploy/monitoring. It finds each metric that they and the dashboard name, a
// repair is counted, and a port that cannot be repaired is an alert.
func TestMonitoring(t *testing.T) {
	r := newRuntime(t, containerd2)
	rules, dashboard := monitoring(t)
	r.write(rules, "rules.json")
	r.write(faster(rules), "faster.json")
	promtool := filepath.Join(tool.Prometheus, "promtool")
	t.Log(r.run(promtool, "check", "rules", r.path("rules.json")))
	r.configure("alerts-test.yaml", struct{ Rules string }{r.path("rules.json")})
	t.Log(r.run(promtool, "test", "rules", r.path("alerts-test.yaml")))

	p := r.pod("vm", "")
	r.agent()
	r.startPrometheus()
	r.metric(`sum(tapbridge_agent_ports{bridge="br0", mode="tap", state="right"})`, "1")
	r.spoil("bridge", "link", "set", "dev", r.ports()[0], "learning", "on")
	r.metric(`sum(tapbridge_agent_repairs_total{side="host", field="learning"})`, "1")
	p.inside("ip", "link", "del", "tap0")
	r.metric(`sum(tapbridge_agent_ports{bridge="br0", mode="tap", state="wrong"})`, "1")
	r.metric(`count(ALERTS{alertname="TapbridgePortWrong", alertstate="firing"})`, "1")
	r.requireExpressions(dashboard)
	p.stop()
	p.remove()
	r.cleanNetwork()
}

// monitoring is the rule file, and the expressions of the dashboard.
func monitoring(t *testing.T) (rules []byte, expressions []string) {
	t.Helper()
	objects, err := deploy.Build(root, "monitoring")
	must(t, err)
	for _, o := range objects {
		switch o.Kind {
		case "PrometheusRule":
			var rule struct{ Spec json.RawMessage }
			must(t, yaml.Unmarshal(o.YAML, &rule))
			rules = rule.Spec
		case "ConfigMap":
			var m core.ConfigMap
			must(t, yaml.Unmarshal(o.YAML, &m))
			expressions = expressionsOf(t, m.Data["dashboard.json"])
		}
	}
	if len(rules) == 0 || len(expressions) < 10 {
		t.Fatalf("rules %s, expressions %q", rules, expressions)
	}
	return rules, expressions
}

func expressionsOf(t *testing.T, dashboard string) (all []string) {
	t.Helper()
	var d struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	must(t, json.Unmarshal([]byte(dashboard), &d))
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, strings.NewReplacer("$instance", ".*", "$__rate_interval", "1m").Replace(target.Expr))
		}
	}
	return all
}

// faster are the rules without their patience.
func faster(rules []byte) []byte {
	return regexp.MustCompile(`"for":"[^"]*"`).ReplaceAll(rules, []byte(`"for":"1s"`))
}

const prometheusAddr = "127.0.0.1:9090"

func (r *runtime) startPrometheus() {
	r.t.Helper()
	config := r.configure("prometheus.yaml", struct{ Rules string }{r.path("faster.json")})
	prometheus := r.node.daemon("prometheus", r.command(filepath.Join(tool.Prometheus, "prometheus"), "--config.file", config,
		"--storage.tsdb.path", r.path("prometheus"), "--web.listen-address", prometheusAddr))
	eventually(r.t, "Prometheus has scraped the agent", func() error {
		if err := prometheus.ended(); err != nil {
			r.t.Fatal(err)
		}
		if got, err := r.query("sum(tapbridge_agent_build_info)"); err != nil || got != "1" {
			return fmt.Errorf("%q: %w", got, err)
		}
		return nil
	})
}

// answer is one of Prometheus' API.
type answer struct {
	Status, Error string
	Data          json.RawMessage
}

// prometheus asks its API.
func (r *runtime) prometheus(path string, parameters url.Values, data any) error {
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			r.net.Do(func() { conn, err = new(net.Dialer).DialContext(ctx, network, address) })
			return conn, err
		},
	}}
	got, err := client.Get("http://" + prometheusAddr + "/api/v1/" + path + "?" + parameters.Encode())
	if err != nil {
		return err
	}
	defer got.Body.Close()
	var a answer
	if err := json.NewDecoder(got.Body).Decode(&a); err != nil {
		return err
	}
	if a.Status != "success" {
		return fmt.Errorf("%s: %s", a.Status, a.Error)
	}
	return json.Unmarshal(a.Data, data)
}

// query is the value of an expression that has at most one.
func (r *runtime) query(expression string) (value string, err error) {
	var data struct{ Result []struct{ Value [2]any } }
	if err := r.prometheus("query", url.Values{"query": {expression}}, &data); err != nil || len(data.Result) == 0 {
		return "", err
	}
	return fmt.Sprint(data.Result[0].Value[1]), nil
}

// metric waits until an expression has that value.
func (r *runtime) metric(expression, want string) {
	r.t.Helper()
	eventually(r.t, expression+" is "+want, func() error {
		if got, err := r.query(expression); err != nil || got != want {
			return fmt.Errorf("it is %q: %w", got, err)
		}
		return nil
	})
}

var metricName = regexp.MustCompile(`\b(?:tapbridge|process|go)_\w+`)

// requireExpressions demands that Prometheus can evaluate each, and that there is each metric in them.
func (r *runtime) requireExpressions(expressions []string) {
	r.t.Helper()
	var names []string
	must(r.t, r.prometheus("label/__name__/values", nil, &names))
	for _, e := range expressions {
		if _, err := r.query(e); err != nil {
			r.t.Errorf("%s: %v", e, err)
		}
		for _, name := range metricName.FindAllString(e, -1) {
			if !slices.Contains(names, name) {
				r.t.Errorf("%s: there is no metric %q", e, name)
			}
		}
	}
}
