package agent

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapbridge/tapbridge/internal/nstest"
	"github.com/tapbridge/tapbridge/pkg/attach"
	"github.com/tapbridge/tapbridge/pkg/port"
)

const withoutDEL = "the port was deleted without DEL"

// A guest whose port somebody deletes is cut off, and nothing but the agent knows.
func TestPortIsDeletedWithoutDEL(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Tap)
	n.apply(a)
	vmm := nstest.OpenTap(t, n.pod, a.TapName())
	defer vmm.Close()
	r := prometheus.NewRegistry()
	n.keepWith(Options{Metrics: NewMetrics(r)})
	n.sh(n.host, named("ip link del PORT", a))
	n.await("a warning", func() bool { return len(n.log.with(withoutDEL)) > 0 })
	n.await("its metric", func() bool { return told(t, r)["ports{br0,tap,deleted}"] == 1 })
	if w := n.log.with(withoutDEL)[0]; w.Level != "WARN" || w.Port != a.PortName() || w.Container != a.ContainerID || w.Interface != a.IfName || w.Tap != a.TapName() {
		t.Errorf("logged %+v", w)
	}
}

// It is said once, for as long as the tap is there: a DEL, or an ADD, ends it.
func TestDeletedPortIsForgotten(t *testing.T) {
	t.Parallel()
	for what, end := range map[string]func(*node, port.Attachment){
		"DEL": func(n *node, a port.Attachment) { n.remove(a.ID) },
		"ADD": func(n *node, a port.Attachment) { n.sh(n.pod, named("ip link del TAP", a)); n.apply(a) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			n, a := newNode(t), wish(port.Tap)
			n.apply(a)
			n.site(func(s *attach.Site) {
				k := newKeeper(s, Options{Interval: time.Hour, Log: slog.New(slog.NewJSONHandler(n.log, nil))})
				k.compareAll(true)
				n.sh(n.host, named("ip link del PORT", a))
				k.compareAll(false)
				if len(n.log.with(withoutDEL)) > 0 {
					t.Error("said at once: a DEL may be under way")
				}
				k.deletions[a.PortName()].at = time.Now().Add(-afterwards)
				k.compareAll(false)
				k.compareAll(false)
				if len(n.log.with(withoutDEL)) != 1 {
					t.Errorf("it is to be said once:\n%s", n.log)
				}
				end(n, a)
				if k.compareAll(false); len(k.deletions) > 0 {
					t.Error("it is not forgotten")
				}
			})
		})
	}
}

// While the kernel takes its time to end a pod's namespace, a port in it is there and its pod
// cannot be entered: that is nothing to be told.
func TestPodsEndUnspoken(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go n.host.Do(func() {
		defer close(ended)
		s, err := attach.Open()
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		k := newKeeper(s, Options{Interval: time.Hour, Log: slog.New(slog.NewJSONHandler(n.log, nil))})
		for ctx.Err() == nil || len(k.ports) > 0 {
			k.compareAll(true)
		}
	})
	t.Run("pods", func(t *testing.T) {
		for i := range 20 {
			n.pod = nstest.New(t)
			a := wish(port.Tap)
			a.ID, a.Guest[5] = port.ID{ContainerID: "4f5c", IfName: "net" + strconv.Itoa(i)}, byte(i)
			n.apply(a)
		}
	})
	cancel()
	<-ended
	if said := n.log.with(""); len(said) > 0 {
		t.Errorf("logged:\n%s", n.log)
	}
}

// With its pod's namespace a port goes without DEL as well, and nobody misses it.
func TestPortGoesWithItsPod(t *testing.T) {
	t.Parallel()
	n, a := newNode(t), wish(port.Tap)
	n.keep(false)
	t.Run("pod", func(t *testing.T) {
		n.pod = nstest.New(t)
		n.apply(a)
		n.await("the port", func() bool { return len(n.wrong(a)) == 0 })
		time.Sleep(2 * debounce)
	})
	n.await("its end", func() bool {
		_, err := n.host.Handle().LinkByName(a.PortName())
		return err != nil
	})
	time.Sleep(afterwards + 4*debounce)
	if said := n.log.with(""); len(said) != 1 {
		t.Errorf("logged:\n%s", n.log)
	}
}
