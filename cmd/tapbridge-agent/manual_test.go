package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapbridge/tapbridge/pkg/agent"
)

// The tables of docs/agent.md are what the program says of itself.
func TestManualHasTheTables(t *testing.T) {
	text, err := os.ReadFile("../../docs/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string][]string{"flag": flagRows(), "metric": metricRows(t)} {
		got := rows(string(text), what)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the table of each %s should be\n%s\n(-want +got):\n%s", what, strings.Join(want, "\n"), diff)
		}
	}
}

// rows are those of the table whose first column has that title.
func rows(page, title string) []string {
	_, table, _ := strings.Cut(page, "\n| "+title+" |")
	table, _, _ = strings.Cut(table, "\n\n")
	lines := strings.Split(table, "\n")
	return lines[min(2, len(lines)):]
}

func flagRows() (rows []string) {
	new(settings).flags().VisitAll(func(f *flag.Flag) {
		_, usage := flag.UnquoteUsage(f)
		rows = append(rows, fmt.Sprintf("| `-%s` | %s | %s |", f.Name, f.DefValue, usage))
	})
	return rows
}

// catalogue is a registry that keeps the descriptions of what is registered: a
// metric that has no value yet is not among what is gathered.
type catalogue struct {
	*prometheus.Registry
	all chan *prometheus.Desc
}

func (c catalogue) MustRegister(all ...prometheus.Collector) {
	for _, one := range all {
		one.Describe(c.all)
	}
	c.Registry.MustRegister(all...)
}

func (c catalogue) Register(one prometheus.Collector) error {
	one.Describe(c.all)
	return c.Registry.Register(one)
}

var description = regexp.MustCompile(`fqName: "(.*?)", help: "(.*?)".*variableLabels: \{(.*?)\}`)

func metricRows(t *testing.T) (rows []string) {
	t.Helper()
	c := catalogue{prometheus.NewRegistry(), make(chan *prometheus.Desc, 100)}
	agent.NewMetrics(c)
	c.MustRegister(buildInfo())
	close(c.all)
	for d := range c.all {
		m := description.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatal(d)
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", m[1], strings.ReplaceAll(m[3], ",", ", "), m[2]))
	}
	slices.Sort(rows)
	return rows
}

var alert = regexp.MustCompile(`(?m)^    - alert: (\w+)$`)

// Each alert is explained, in the order of the rules.
func TestManualExplainsTheAlerts(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := rows(strings.TrimSpace(string(text))+"\n\n", "alert")
	alerts := alert.FindAllStringSubmatch(string(rules), -1)
	if len(alerts) == 0 || len(alerts) != len(explained) {
		t.Fatalf("%d alerts, %d are explained", len(alerts), len(explained))
	}
	for i, a := range alerts {
		if !strings.HasPrefix(explained[i], "| `"+a[1]+"` | ") {
			t.Errorf("the row of %s is %q", a[1], explained[i])
		}
	}
}
