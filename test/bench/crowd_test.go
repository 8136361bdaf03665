package bench

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tapbridge/tapbridge/pkg/port"
)

// crowd starts one call for each of the first pods at once, and waits for all.
func (n *node) crowd(size int, c func(pod int) call) time.Duration {
	n.t.Helper()
	var all sync.WaitGroup
	begin := time.Now()
	for i := range size {
		all.Go(func() { n.run(c(i)) })
	}
	all.Wait()
	return time.Since(begin)
}

// crowds attaches many pods at the same time.
func crowds(t *testing.T, e extent, p programs, r *report) {
	n := newNode(t, slices.Max(e.crowds))
	rates := map[string]*sample{}
	for range e.crowded {
		for _, size := range e.crowds {
			for _, x := range []struct{ who, program, conf string }{
				{"tapbridge", p.tapbridge, ours(port.Tap)}, {"bridge", p.bridge, bridgeConf},
			} {
				for _, verb := range []string{"ADD", "DEL"} {
					took := n.crowd(size, func(pod int) call { return n.plugin(x.program, verb, pod, "net1", x.conf) })
					key := fmt.Sprint(x.who, verb, size)
					if rates[key] == nil {
						rates[key] = &sample{}
					}
					rates[key].add(float64(size) / took.Seconds())
				}
			}
		}
	}
	r.heading("Many at once")
	r.text("Attachments per second when so many processes start at the same time, on one bridge; the start of the processes included.")
	rows := [][]string{{"processes at once", "tapbridge ADD, mode `tap`", "`bridge` ADD", "tapbridge DEL", "`bridge` DEL"}}
	for _, size := range e.crowds {
		row := []string{fmt.Sprint(size)}
		for _, key := range []string{"tapbridgeADD", "bridgeADD", "tapbridgeDEL", "bridgeDEL"} {
			row = append(row, rates[key+fmt.Sprint(size)].String())
		}
		rows = append(rows, row)
	}
	r.table(rows...)
	most := fmt.Sprint(slices.Max(e.crowds))
	r.promise(most+" ADDs at once, of the rate of `bridge`", ratio(rates["tapbridgeADD"+most].median(), rates["bridgeADD"+most].median()), "≥", 0.8)
}
