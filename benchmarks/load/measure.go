package main

import (
	"slices"
	"syscall"
	"time"
)

// latencies are in milliseconds.
type latencies struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Max   float64 `json:"max"`
}

// summarize takes the samples of all workers and sorts them.
func summarize(samples [][]time.Duration) latencies {
	all := slices.Concat(samples...)
	if len(all) == 0 {
		return latencies{}
	}
	slices.Sort(all)
	at := func(share float64) float64 {
		index := min(int(share*float64(len(all))), len(all)-1)
		return float64(all[index].Microseconds()) / 1000
	}
	return latencies{len(all), at(0.5), at(0.99), at(0.999), at(1)}
}

// meter measures how much of a core this process takes: near 1, the load and not the server is what was measured.
type meter struct {
	begin   time.Time
	cpuThen chan time.Duration
}

// startMeter begins at the given time, which may lie ahead.
func startMeter(begin time.Time) *meter {
	m := &meter{begin, make(chan time.Duration, 1)}
	time.AfterFunc(time.Until(begin), func() { m.cpuThen <- cpuTime() })
	return m
}

// share must be called after the meter's begin.
func (m *meter) share() float64 {
	return float64(cpuTime()-<-m.cpuThen) / float64(time.Since(m.begin))
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
