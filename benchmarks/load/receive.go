package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	v2 "kourou/benchmarks/load/gen"
)

const (
	invisibleTime = time.Minute
	pollTime      = 2 * time.Second
	anyQueue      = -1
)

type receiveResult struct {
	Messages     int64     `json:"messages"`
	Duplicates   int64     `json:"duplicates"` // messages that came more than once
	Seconds      float64   `json:"seconds"`    // from the first message to the last acknowledgement
	MessagesPerS float64   `json:"messages_per_s"`
	Receive      latencies `json:"receive_ms"` // a call, to its last message
	Ack          latencies `json:"ack_ms"`
	CPUShare     float64   `json:"cpu_share"`
}

// receiver is what all workers of a run share.
type receiver struct {
	options options

	mutex      sync.Mutex
	seen       map[string]struct{}
	settled    int64
	duplicates int64
	begin      time.Time
	lastCame   time.Time
}

func receive(ctx context.Context, clients *clients, o options) (any, error) {
	if o.messages <= 0 {
		return nil, errors.New("receive needs -messages, the size of the backlog")
	}
	r := &receiver{options: o, seen: map[string]struct{}{}, begin: time.Now(), lastCame: time.Now()}
	meter := startMeter(r.begin)
	receives, acks := make([][]time.Duration, o.inFlight), make([][]time.Duration, o.inFlight)
	group, ctx := errgroup.WithContext(ctx)
	for worker := range o.inFlight {
		group.Go(func() (err error) {
			receives[worker], acks[worker], err = r.work(ctx, clients.of(worker))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	// Polls that were parked when the backlog ended end after it: the last message's time is the end.
	seconds := r.lastCame.Sub(r.begin).Seconds()
	return receiveResult{
		Messages: r.settled, Duplicates: r.duplicates, Seconds: seconds, MessagesPerS: float64(r.settled) / seconds,
		Receive: summarize(receives), Ack: summarize(acks), CPUShare: meter.share(),
	}, nil
}

func (r *receiver) work(ctx context.Context, client *client) (receives, acks []time.Duration, err error) {
	ctx = client.as(ctx)
	for {
		began := time.Now()
		messages, err := receiveOnce(ctx, client, r.options)
		if err != nil {
			return nil, nil, err
		}
		if len(messages) == 0 {
			if done, err := r.done(); done || err != nil {
				return receives, acks, err
			}
			continue
		}
		received := time.Now()
		receives = append(receives, received.Sub(began))
		for _, entries := range inAcks(messages, r.options.ackBatch) {
			began := time.Now()
			if err := ackOnce(ctx, client, r.options, entries); err != nil {
				return nil, nil, err
			}
			acks = append(acks, time.Since(began))
		}
		if r.count(messages) {
			return receives, acks, nil
		}
	}
}

// count notes that these messages were acknowledged; true: they were the last.
func (r *receiver) count(messages []*v2.Message) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, message := range messages {
		id := message.SystemProperties.GetMessageId()
		if _, known := r.seen[id]; known {
			r.duplicates++
		}
		r.seen[id] = struct{}{}
	}
	if r.settled < r.options.messages {
		r.lastCame = time.Now()
	}
	r.settled += int64(len(messages))
	return r.settled >= r.options.messages
}

func (r *receiver) done() (bool, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.settled >= r.options.messages {
		return true, nil
	}
	if time.Since(r.lastCame) > 5*pollTime {
		return false, fmt.Errorf("only %d of %d messages came", r.settled, r.options.messages)
	}
	return false, nil
}

// receiveOnce is one long poll; no message is no error.
func receiveOnce(ctx context.Context, client *client, o options) ([]*v2.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := client.stub.ReceiveMessage(ctx, &v2.ReceiveMessageRequest{
		Group:              &v2.Resource{Name: o.group},
		MessageQueue:       &v2.MessageQueue{Topic: &v2.Resource{Name: o.topic}, Id: anyQueue},
		FilterExpression:   &v2.FilterExpression{Type: v2.FilterType_TAG, Expression: "*"},
		BatchSize:          int32(o.batch),
		InvisibleDuration:  durationpb.New(invisibleTime),
		LongPollingTimeout: durationpb.New(pollTime),
	})
	if err != nil {
		return nil, err
	}
	messages := make([]*v2.Message, 0, o.batch)
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return messages, nil
		}
		if err != nil {
			return nil, err
		}
		switch content := part.Content.(type) {
		case *v2.ReceiveMessageResponse_Message:
			messages = append(messages, content.Message)
		case *v2.ReceiveMessageResponse_Status:
			if content.Status.GetCode() == v2.Code_MESSAGE_NOT_FOUND {
				continue
			}
			if err := checkStatus(content.Status, "a receive"); err != nil {
				return nil, err
			}
		}
	}
}

// inAcks puts the entries of messages into as many acknowledgements as asked for.
func inAcks(messages []*v2.Message, together bool) [][]*v2.AckMessageEntry {
	entries := make([]*v2.AckMessageEntry, len(messages))
	for i, message := range messages {
		properties := message.SystemProperties
		entries[i] = &v2.AckMessageEntry{MessageId: properties.GetMessageId(), ReceiptHandle: properties.GetReceiptHandle()}
	}
	if together {
		return [][]*v2.AckMessageEntry{entries}
	}
	acks := make([][]*v2.AckMessageEntry, len(entries))
	for i := range entries {
		acks[i] = entries[i : i+1]
	}
	return acks
}

func ackOnce(ctx context.Context, client *client, o options, entries []*v2.AckMessageEntry) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := client.stub.AckMessage(ctx, &v2.AckMessageRequest{
		Group: &v2.Resource{Name: o.group}, Topic: &v2.Resource{Name: o.topic}, Entries: entries,
	})
	if err != nil {
		return err
	}
	if err := checkStatus(response.Status, "an ack"); err != nil {
		return err
	}
	if len(response.Entries) != len(entries) {
		return fmt.Errorf("an ack of %d messages was answered with %d entries", len(entries), len(response.Entries))
	}
	for _, entry := range response.Entries {
		if err := checkStatus(entry.Status, "an ack's entry"); err != nil {
			return err
		}
	}
	return nil
}
