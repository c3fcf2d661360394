package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v2 "kourou/hello/gen/apache/rocketmq/v2"
)

const (
	pollTime      = 5 * time.Second  // how long a broker may wait for messages before it answers that there are none
	invisibleTime = 30 * time.Second // what is not acknowledged by then comes again, to whichever member of the group asks
	batchSize     = 32
	anyQueue      = -1 // of the broker that is asked
)

var everything = &v2.FilterExpression{Type: v2.FilterType_TAG, Expression: "*"} // or tags, as in "paid || shipped"

// receive asks the brokers of the topic in turn, until enough messages came.
func receive(ctx context.Context, o options) error {
	client := newClient()
	defer client.close()
	brokers, err := client.brokers(ctx, o, v2.Permission_READ)
	if err != nil {
		return err
	}
	session, err := client.join(ctx, brokers, &v2.Settings{
		ClientType: v2.ClientType_SIMPLE_CONSUMER.Enum(),
		PubSub: &v2.Settings_Subscription{Subscription: &v2.Subscription{
			Group:         &v2.Resource{Name: o.group},
			Subscriptions: []*v2.SubscriptionEntry{{Topic: &v2.Resource{Name: o.topic}, Expression: everything}},
		}},
	})
	if err != nil {
		return err
	}
	defer session.leave(ctx)

	received, latest := 0, time.Now()
	for turn := 0; received < o.count; turn++ {
		broker := brokers[turn%len(brokers)]
		messages, err := poll(ctx, broker, o, min(batchSize, o.count-received))
		if err != nil {
			return fmt.Errorf("%s: %w", broker.name, err)
		}
		for _, message := range messages {
			fmt.Println(show(message))
		}
		// Only now that they are dealt with: if we end before, they come again.
		if err := acknowledge(ctx, broker, o, messages); err != nil {
			return fmt.Errorf("%s: %w", broker.name, err)
		}
		if received += len(messages); len(messages) > 0 {
			latest = time.Now()
		} else if time.Since(latest) >= o.idle {
			return fmt.Errorf("%d of %d messages came, and then none for %v", received, o.count, o.idle)
		}
	}
	return nil
}

// poll is one long poll. That there are no messages is no error.
func poll(ctx context.Context, broker broker, o options, most int) ([]*v2.Message, error) {
	wait := min(pollTime, o.idle)
	ctx, cancel := context.WithTimeout(ctx, wait+callTimeout)
	defer cancel()
	stream, err := broker.stub.ReceiveMessage(ctx, &v2.ReceiveMessageRequest{
		Group:              &v2.Resource{Name: o.group},
		MessageQueue:       &v2.MessageQueue{Topic: &v2.Resource{Name: o.topic}, Id: anyQueue},
		FilterExpression:   everything,
		BatchSize:          int32(most),
		InvisibleDuration:  durationpb.New(invisibleTime),
		LongPollingTimeout: durationpb.New(wait),
	})
	if err != nil {
		return nil, err
	}
	var messages []*v2.Message
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return messages, nil
		}
		if err != nil {
			return nil, err
		}
		// Each part is a status, a message, or the time of delivery.
		if message := part.GetMessage(); message != nil {
			if err := unpack(message); err != nil {
				return nil, err
			}
			messages = append(messages, message)
		} else if status := part.GetStatus(); status != nil && status.Code != v2.Code_MESSAGE_NOT_FOUND {
			if err := check(status); err != nil {
				return nil, err
			}
		}
	}
}

// unpack leaves the body as its sender wrote it: some clients pack large ones.
func unpack(message *v2.Message) error {
	if message.SystemProperties.BodyEncoding != v2.Encoding_GZIP {
		return nil
	}
	reader, err := gzip.NewReader(bytes.NewReader(message.Body))
	if err != nil {
		return err
	}
	message.Body, err = io.ReadAll(reader)
	return err
}

// acknowledge returns when the broker has it on its disk: the messages will not come again.
func acknowledge(ctx context.Context, broker broker, o options, messages []*v2.Message) error {
	if len(messages) == 0 {
		return nil
	}
	request := &v2.AckMessageRequest{Group: &v2.Resource{Name: o.group}, Topic: &v2.Resource{Name: o.topic}}
	for _, message := range messages {
		properties := message.SystemProperties
		request.Entries = append(request.Entries,
			&v2.AckMessageEntry{MessageId: properties.MessageId, ReceiptHandle: properties.GetReceiptHandle()})
	}
	answer, err := broker.stub.AckMessage(ctx, request)
	if err != nil {
		return err
	}
	for _, entry := range answer.Entries {
		if err := check(entry.Status); err != nil {
			return fmt.Errorf("message %s: %w", entry.MessageId, err)
		}
	}
	return nil
}
