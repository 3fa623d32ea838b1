package main

import (
	"os"
	"testing"
)

// BenchmarkRow runs our side of the row named by $BENCH_ROW under the test runner, for its profiles.
func BenchmarkRow(b *testing.B) {
	name := os.Getenv("BENCH_ROW")
	if name == "" {
		b.Skip("BENCH_ROW names no row")
	}
	for _, group := range groups() {
		for _, r := range group() {
			if r.Name != name {
				continue
			}
			ours, _ := r.Setup()
			b.ReportAllocs()
			for b.Loop() {
				ours.Do()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*ours.Ops), "ns/operation")
		}
	}
}
