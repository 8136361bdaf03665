package agent

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapbridge/tapbridge/pkg/port"
)

// told is what a scrape would tell, one line a value; of a histogram its count.
func told(t *testing.T, r prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			name := fmt.Sprintf("%s{%s}", strings.TrimPrefix(f.GetName(), "tapbridge_agent_"), strings.Join(labels, ","))
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

// What the agent does is counted, by bridge, mode, state and field.
func TestMetrics(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Tap)
	other := wish(port.Veth)
	other.ID, other.Guest[5] = port.ID{ContainerID: "4f5c", IfName: "net2"}, 9
	n.apply(a)
	n.apply(other)
	r := prometheus.NewRegistry()
	n.keepWith(Options{Metrics: NewMetrics(r)})
	want := func(what string, values map[string]float64) {
		t.Helper()
		n.await(what, func() bool {
			now := told(t, r)
			for name, v := range values {
				if got, there := now[name]; !there || got != v {
					return false
				}
			}
			return true
		})
	}
	want("both ports", map[string]float64{
		"ports{br0,tap,right}": 1, "ports{br0,veth,right}": 1, "full_comparison_seconds{}": 1,
		"comparisons_total{host}": 2, "comparisons_total{pod}": 1, "unrepairable_total{pod}": 0, "pauses_total{host}": 0,
	})
	n.sh(n.host, named("bridge link set dev PORT learning on", a))
	n.sh(n.pod, named("ip link set TAP mtu 1300", a))
	want("repairs", map[string]float64{"repairs_total{learning,host}": 1, "repairs_total{tap MTU,pod}": 1, "ports{br0,tap,right}": 1})
	n.sh(n.pod, named("ip link del TAP", a))
	want("what cannot be repaired", map[string]float64{"ports{br0,tap,right}": 0, "ports{br0,tap,wrong}": 1, "unrepairable_total{pod}": 1, "ports{br0,veth,right}": 1})
	n.remove(a.ID)
	n.await("a mode without ports is not told any more", func() bool {
		now := told(t, r)
		_, there := now["ports{br0,tap,right}"]
		return !there && now["ports{br0,veth,right}"] == 1
	})
}

// A fight is counted, and the port is paused.
func TestMetricsOfAFight(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Veth)
	n.apply(a)
	r := prometheus.NewRegistry()
	n.keepWith(Options{Metrics: NewMetrics(r)})
	n.await("a pause", func() bool {
		if len(n.wrong(a)) == 0 {
			n.sh(n.host, named("bridge link set dev PORT learning on", a))
		}
		now := told(t, r)
		return now["pauses_total{host}"] > 0 && now["ports{br0,veth,paused}"] == 1
	})
}
