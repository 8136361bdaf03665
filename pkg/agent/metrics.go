package agent

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

// Metrics are what an agent counts. Each is explained by its help text, and in
// docs/agent.md.
type Metrics struct {
	ports        *standings
	repairs      *prometheus.CounterVec
	unrepairable *prometheus.CounterVec
	pauses       *prometheus.CounterVec
	comparisons  *prometheus.CounterVec
	comparison   prometheus.Histogram
	lost         prometheus.Counter

	followed             *prometheus.GaugeVec
	activation           prometheus.Histogram
	withdrawals, foreign prometheus.Counter

	promotions, demotions, unpromoted prometheus.Counter

	sweeps, runtimeErrors prometheus.Counter
	strays                prometheus.Gauge
}

// NewMetrics makes those of one agent, and registers them with r unless that is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	with := promauto.With(r)
	m := &Metrics{
		ports: newStandings(),
		repairs: with.NewCounterVec(prometheus.CounterOpts{
			Name: "tapbridge_agent_repairs_total", Help: "Differences that were repaired.",
		}, []string{"side", "field"}),
		unrepairable: with.NewCounterVec(prometheus.CounterOpts{
			Name: "tapbridge_agent_unrepairable_total", Help: "Times that something was found that cannot be repaired; once until it changes.",
		}, []string{"side"}),
		pauses: with.NewCounterVec(prometheus.CounterOpts{
			Name: "tapbridge_agent_pauses_total", Help: "Times that a side of a port was left alone for a while because another program undoes every repair, or keeps changing what is wrong.",
		}, []string{"side"}),
		comparisons: with.NewCounterVec(prometheus.CounterOpts{
			Name: "tapbridge_agent_comparisons_total", Help: "Comparisons of one side of one port.",
		}, []string{"side"}),
		comparison: with.NewHistogram(prometheus.HistogramOpts{
			Name: "tapbridge_agent_full_comparison_seconds", Help: "Time that a comparison of every port took, with its repairs: of the host side, at the start and after lost events of both.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		lost: with.NewCounter(prometheus.CounterOpts{
			Name: "tapbridge_agent_events_lost_total", Help: "Times that the kernel's events came faster than they were read; everything is compared then.",
		}),
		followed: with.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tapbridge_agent_followed_ports", Help: "Ports with fdb follow, by whether their guest is waited for or runs: waiting, running.",
		}, []string{"state"}),
		activation: with.NewHistogram(prometheus.HistogramOpts{
			Name: "tapbridge_agent_activation_seconds", Help: "Time from the kernel's word of a guest's first frame to its forwarding entry, with fdb follow.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14),
		}),
		withdrawals: with.NewCounter(prometheus.CounterOpts{
			Name: "tapbridge_agent_withdrawals_total", Help: "Times that a forwarding entry was taken out because the VMM had gone, with fdb follow.",
		}),
		foreign: with.NewCounter(prometheus.CounterOpts{
			Name: "tapbridge_agent_foreign_addresses_total", Help: "Times that another address than the guest's has spoken on a port that waits for its guest; some of them only where there are many.",
		}),
		promotions: with.NewCounter(prometheus.CounterOpts{
			Name: "tapbridge_agent_promotions_total", Help: "Taps that were promoted to ports.",
		}),
		demotions: with.NewCounter(prometheus.CounterOpts{
			Name: "tapbridge_agent_demotions_total", Help: "Promoted taps that were put back into the pod.",
		}),
		unpromoted: with.NewCounter(prometheus.CounterOpts{
			Name: "tapbridge_agent_promotion_failures_total", Help: "Times that a tap could not be promoted or put back.",
		}),
		sweeps: with.NewCounter(prometheus.CounterOpts{
			Name: "tapbridge_agent_sweeps_total", Help: "Ports that were removed because the runtime does not know their sandbox.",
		}),
		runtimeErrors: with.NewCounter(prometheus.CounterOpts{
			Name: "tapbridge_agent_runtime_errors_total", Help: "Times that the runtime could not be asked for its sandboxes.",
		}),
		strays: with.NewGauge(prometheus.GaugeOpts{
			Name: "tapbridge_agent_stray_ports", Help: "Ports whose sandbox the runtime does not know: in the grace period, in use, or not to be removed.",
		}),
	}
	if r != nil {
		r.MustRegister(m.ports)
	}
	for _, side := range sides { // what has not happened yet is 0, not absent
		for _, c := range []*prometheus.CounterVec{m.unrepairable, m.pauses, m.comparisons} {
			c.WithLabelValues(string(side))
		}
	}
	return m
}

func (m *Metrics) repaired(side attach.Side, differences port.Differences) {
	for _, d := range differences {
		m.repairs.WithLabelValues(string(side), d.Field).Inc()
	}
}

// The states of a port, from the best to the worst.
const (
	right      = "right"
	wrong      = "wrong"   // not as it should be, and it was not repaired
	paused     = "paused"  // of a fight
	deleted    = "deleted" // without DEL, and the guest's tap is in the pod
	unrecorded = "unrecorded"
)

// standing is what ports are counted by. One without a record has no more than a
// state.
type standing struct{ bridge, mode, state string }

// standings are how many ports stand how. They are replaced as a whole, so that a
// scrape never sees half of them.
type standings struct {
	now  atomic.Pointer[map[standing]int]
	desc *prometheus.Desc
}

func newStandings() *standings {
	s := &standings{desc: prometheus.NewDesc("tapbridge_agent_ports", "Ports by bridge, mode and state: right, wrong, paused, deleted, unrecorded.", []string{"bridge", "mode", "state"}, nil)}
	s.now.Store(&map[standing]int{})
	return s
}

// Describe is for prometheus.Collector.
func (s *standings) Describe(to chan<- *prometheus.Desc) { to <- s.desc }

// Collect is for prometheus.Collector.
func (s *standings) Collect(to chan<- prometheus.Metric) {
	for k, n := range *s.now.Load() {
		to <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, float64(n), k.bridge, k.mode, k.state)
	}
}

// publish tells how the ports stand. A bridge that has ports has a count of those
// that are right, even where that is 0: an alert compares with it.
func (k *keeper) publish(now time.Time) {
	all := map[standing]int{}
	for name, p := range k.ports {
		all[standing{p.Bridge, string(p.Mode), right}] += 0
		all[standing{p.Bridge, string(p.Mode), k.standing(name, now)}]++
	}
	for _, d := range k.deletions {
		if d.said {
			all[standing{d.Bridge, string(d.Mode), deleted}]++
		}
	}
	if n := len(k.nameless); n > 0 {
		all[standing{state: unrecorded}] = n
	}
	k.Metrics.ports.now.Store(&all)
	k.publishFollowed()
}

// standing is the worse of both sides.
func (k *keeper) standing(name string, now time.Time) string {
	state := right
	for _, side := range sides {
		switch s := k.state[part{name, side}]; {
		case s == nil:
		case now.Before(s.until):
			return paused
		case s.said != "":
			state = wrong
		}
	}
	return state
}
