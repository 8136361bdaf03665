package bench

import (
	"fmt"
	"slices"
	"time"
)

// sample is what came of measuring one thing several times.
type sample []float64

func (s *sample) add(v float64) { *s = append(*s, v) }

func (s *sample) took(d time.Duration) { s.add(d.Seconds() * 1000) }

// quantile is the value that a share of the others does not exceed; 0 of none.
func (s sample) quantile(share float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(share*float64(len(s))), len(s)-1)]
}

func (s sample) median() float64 { return s.quantile(0.5) }

// spread is where the middle half of the values is.
func (s sample) spread() (low, high float64) { return s.quantile(0.25), s.quantile(0.75) }

// less is the sample without what every value has in common.
func (s sample) less(floor float64) sample {
	rest := slices.Clone(s)
	for i := range rest {
		rest[i] -= floor
	}
	return rest
}

func (s sample) String() string {
	low, high := s.spread()
	return fmt.Sprintf("%.2f (%.2f to %.2f)", s.median(), low, high)
}

// ratio is that of two figures; 0 where there is nothing to compare with.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
