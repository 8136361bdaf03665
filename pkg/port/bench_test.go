package port_test

import (
	"testing"

	"github.com/tapbridge/tapbridge/pkg/port"
)

func BenchmarkDiff(b *testing.B) {
	a := attachment(port.Tap, port.Sticky)
	want, got := a.Want(), a.Want()
	for b.Loop() {
		if err := port.Diff(want, got); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseRecord(b *testing.B) {
	record := attachment(port.Tap, port.Sticky).Record()
	for b.Loop() {
		if _, err := port.ParseRecord(record); err != nil {
			b.Fatal(err)
		}
	}
}
