package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	v2 "kourou/benchmarks/load/gen"
)

// parkedResult is written when all polls wait, answersResult at the end.
type parkedResult struct {
	Parked int `json:"parked"`
}

type answersResult struct {
	Answers int64 `json:"answers"` // polls whose time was over while they were counted, each asked again at once
}

// polls parks -in-flight long polls at queues that stay empty, and asks each again when its time is over. They begin
// one after the other during -warmup-seconds, so that their ends are spread as evenly.
//
// With -queues, a poll is for one queue: number n for queue n % queues of topic n / queues, as push consumers ask, and
// a topic belongs to one client. Else all polls ask for all queues of one topic. With -groups, each client is in one.
func polls(ctx context.Context, clients *clients, o options) (any, error) {
	topics := topicNames(o)
	ctx, end := context.WithCancel(ctx)
	defer end()
	group, ctx := errgroup.WithContext(ctx)
	var waiting, answers atomic.Int64
	for number := range o.inFlight {
		request, client := pollOf(number, topics, clients, o)
		start := o.warmup * time.Duration(number) / time.Duration(o.inFlight)
		group.Go(func() error {
			time.Sleep(start)
			waiting.Add(1)
			return pollAgain(client.as(ctx), client, request, o.poll, &answers)
		})
	}
	for waiting.Load() < int64(o.inFlight) && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	sleep(ctx, time.Second)
	if err := json.NewEncoder(os.Stdout).Encode(parkedResult{o.inFlight}); err != nil {
		return nil, err
	}
	before := answers.Load()
	sleep(ctx, o.window)
	result := answersResult{answers.Load() - before}
	if ctx.Err() != nil { // one of them failed
		return nil, group.Wait()
	}
	end()
	_ = group.Wait()
	return result, clients.leave(o)
}

func pollOf(number int, topics []string, clients *clients, o options) (*v2.ReceiveMessageRequest, *client) {
	topic, queue, owner := topics[0], int32(anyQueue), number%o.connections
	if o.queues > 0 {
		place := number / o.queues % len(topics)
		topic, queue, owner = topics[place], int32(number%o.queues), place%o.connections
	}
	return &v2.ReceiveMessageRequest{
		Group:              groupOf(owner, o),
		MessageQueue:       &v2.MessageQueue{Topic: &v2.Resource{Name: topic}, Id: queue},
		FilterExpression:   &v2.FilterExpression{Type: v2.FilterType_TAG, Expression: "*"},
		BatchSize:          int32(max(o.batch, 1)),
		AutoRenew:          o.queues > 0,
		InvisibleDuration:  durationpb.New(invisibleTime),
		LongPollingTimeout: durationpb.New(o.poll),
	}, clients.of(owner)
}

func groupOf(client int, o options) *v2.Resource {
	if o.groups > 1 {
		return &v2.Resource{Name: fmt.Sprintf("%s-%04d", o.group, client%o.groups)}
	}
	return &v2.Resource{Name: o.group}
}

// leave says goodbye for all clients: else they stay members of their groups for a while, and queues belong to them.
func (c *clients) leave(o options) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	for number, client := range *c {
		request := &v2.NotifyClientTerminationRequest{Group: groupOf(number, o)}
		answer, err := client.stub.NotifyClientTermination(client.as(ctx), request)
		if err != nil {
			return err
		}
		if err := checkStatus(answer.GetStatus(), "a goodbye"); err != nil {
			return err
		}
	}
	return nil
}

func pollAgain(
	ctx context.Context, client *client, request *v2.ReceiveMessageRequest, wait time.Duration, answers *atomic.Int64,
) error {
	for {
		began := time.Now()
		if err := pollOnce(ctx, client, request, wait); err != nil {
			return err
		}
		if took := time.Since(began); took < wait*9/10 {
			return fmt.Errorf("a poll of %s was answered after %s", wait, took)
		}
		answers.Add(1)
	}
}

// pollOnce returns when the poll was answered that there is no message.
func pollOnce(ctx context.Context, client *client, request *v2.ReceiveMessageRequest, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait+callTimeout)
	defer cancel()
	stream, err := client.stub.ReceiveMessage(ctx, request)
	if err != nil {
		return err
	}
	part, err := stream.Recv()
	if err != nil {
		return err
	}
	if status := part.GetStatus(); status.GetCode() != v2.Code_MESSAGE_NOT_FOUND {
		return fmt.Errorf("a poll of an empty queue was answered %s: %s", status.GetCode(), status.GetMessage())
	}
	if _, err = stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("an empty answer does not end: %w", err)
	}
	return nil
}

func sleep(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
}
