package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	v2 "kourou/benchmarks/load/gen"
)

type sendResult struct {
	Calls          int       `json:"calls"`
	Messages       int       `json:"messages"`
	Seconds        float64   `json:"seconds"`
	MessagesPerS   float64   `json:"messages_per_s"`
	CallsPerS      float64   `json:"calls_per_s"`
	Latency        latencies `json:"latency_ms"`
	CPUShare       float64   `json:"cpu_share"` // of the load program itself, of one core
	SentWithWarmup int64     `json:"sent_with_warmup"`
}

// sender is what all workers of a run share.
type sender struct {
	options options
	topics  []string
	sent    atomic.Int64  // messages given to a call
	calls   atomic.Uint64 // for the turn of the topics
	begin   time.Time     // of the window that counts
	end     time.Time
}

func send(ctx context.Context, clients *clients, o options) (any, error) {
	s := &sender{options: o, topics: topicNames(o), begin: time.Now().Add(o.warmup)}
	s.end = s.begin.Add(o.window)
	if o.messages > 0 {
		s.begin, s.end = time.Now(), time.Now().Add(24*time.Hour)
	}
	meter := startMeter(s.begin)
	samples := make([][]time.Duration, o.inFlight)
	group, ctx := errgroup.WithContext(ctx)
	for worker := range o.inFlight {
		group.Go(func() (err error) {
			samples[worker], err = s.work(ctx, clients.of(worker))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	end := s.end
	if o.messages > 0 {
		end = time.Now()
	}
	seconds, share := end.Sub(s.begin).Seconds(), meter.share()
	summary := summarize(samples)
	messages := summary.Count * o.batch
	return sendResult{
		Calls: summary.Count, Messages: messages, Seconds: seconds,
		MessagesPerS: float64(messages) / seconds, CallsPerS: float64(summary.Count) / seconds,
		Latency: summary, CPUShare: share, SentWithWarmup: s.sent.Load(),
	}, nil
}

func (s *sender) work(ctx context.Context, client *client) ([]time.Duration, error) {
	request, err := newRequest(s.topics[0], s.options.batch, s.options.bodyBytes)
	if err != nil {
		return nil, err
	}
	ctx = client.as(ctx)
	var samples []time.Duration
	for {
		began := time.Now()
		if !began.Before(s.end) {
			return samples, nil
		}
		number := s.sent.Add(int64(s.options.batch))
		if s.options.messages > 0 && number > s.options.messages {
			s.sent.Add(-int64(s.options.batch))
			return samples, nil
		}
		request.setNumbers(uint64(number))
		request.setTopic(s.topics[s.calls.Add(1)%uint64(len(s.topics))])
		if err := sendOnce(ctx, client, request, s.options.oneEntry); err != nil {
			return nil, err
		}
		if ended := time.Now(); ended.After(s.begin) && ended.Before(s.end) {
			samples = append(samples, ended.Sub(began))
		}
	}
}

func sendOnce(ctx context.Context, client *client, request *request, oneEntry bool) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var response v2.SendMessageResponse
	if err := client.connection.Invoke(ctx, v2.MessagingService_SendMessage_FullMethodName, request.data, &response); err != nil {
		return err
	}
	if err := checkStatus(response.Status, "a send"); err != nil {
		return err
	}
	if oneEntry && len(request.ids) > 1 && len(response.Entries) == 1 {
		return checkStatus(response.Entries[0].Status, "a batch")
	}
	if len(response.Entries) != len(request.ids) {
		return fmt.Errorf("a send of %d messages was answered with %d entries", len(request.ids), len(response.Entries))
	}
	for i, entry := range response.Entries {
		if err := checkStatus(entry.Status, "a message"); err != nil {
			return err
		}
		at := request.ids[i]
		if id := entry.MessageId; len(id) < idNumberChars || id[len(id)-idNumberChars:] != string(request.data[at:at+idNumberChars]) {
			return fmt.Errorf("a message was answered with another one's id %q", id)
		}
	}
	return nil
}
