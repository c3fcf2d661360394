package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

type latencyResult struct {
	Messages int       `json:"messages"`
	Send     latencies `json:"send_ms"`       // to the acknowledgement of the send
	EndToEnd latencies `json:"end_to_end_ms"` // to the receiver
	CPUShare float64   `json:"cpu_share"`
}

// latency sends at a fixed rate, whether or not earlier sends were answered, and counts from the time at which a
// message was due: a server that stalls is charged for all who would have come meanwhile.
func latency(ctx context.Context, clients *clients, o options) (any, error) {
	messages := int((o.warmup + o.window).Seconds() * float64(o.rate))
	begin := time.Now().Add(100 * time.Millisecond) // the polls are parked by then
	counted := begin.Add(o.warmup)
	interval := time.Second / time.Duration(o.rate)

	var mutex sync.Mutex
	var sends, ends []time.Duration
	note := func(samples *[]time.Duration, due time.Time) {
		took := time.Since(due)
		mutex.Lock()
		defer mutex.Unlock()
		if !due.Before(counted) {
			*samples = append(*samples, took)
		}
	}

	meter := startMeter(counted)
	sending, sendContext := errgroup.WithContext(ctx)
	arrivals := startArrivals(ctx, clients, o, messages, func(due time.Time) { note(&ends, due) })
	for i := range messages {
		due := begin.Add(time.Duration(i) * interval)
		time.Sleep(time.Until(due))
		sending.Go(func() error {
			client := clients.of(i)
			request, err := newRequest(o.topic, 1, o.bodyBytes)
			if err != nil {
				return err
			}
			request.setTime(due)
			if err := sendOnce(client.as(sendContext), client, request, o.oneEntry); err != nil {
				return err
			}
			note(&sends, due)
			return nil
		})
	}
	if err := sending.Wait(); err != nil {
		return nil, err
	}
	if err := arrivals.wait(); err != nil {
		return nil, err
	}
	return latencyResult{
		messages, summarize([][]time.Duration{sends}), summarize([][]time.Duration{ends}), meter.share(),
	}, nil
}

// arrivals receives and acknowledges until all messages came.
type arrivals struct {
	group   *errgroup.Group
	timeout context.CancelFunc
}

func startArrivals(ctx context.Context, clients *clients, o options, messages int, came func(due time.Time)) *arrivals {
	ctx, cancel := context.WithTimeout(ctx, 2*(o.warmup+o.window)+callTimeout)
	group, ctx := errgroup.WithContext(ctx)
	var missing atomic.Int64
	missing.Store(int64(messages))
	for poller := range o.pollers {
		group.Go(func() error {
			client := clients.of(poller)
			ctx := client.as(ctx)
			for {
				received, err := receiveOnce(ctx, client, o)
				if err != nil {
					return fmt.Errorf("while %d messages were awaited: %w", missing.Load(), err)
				}
				for _, message := range received {
					came(timeOf(message))
				}
				if len(received) > 0 {
					if err := ackOnce(ctx, client, o, inAcks(received, true)[0]); err != nil {
						return err
					}
				}
				if missing.Add(-int64(len(received))) <= 0 {
					return nil
				}
			}
		})
	}
	return &arrivals{group, cancel}
}

func (a *arrivals) wait() error {
	defer a.timeout()
	return a.group.Wait()
}
