package main

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	v2 "kourou/benchmarks/load/gen"
)

// introduce tells the server who each client is and waits until it has been answered. The streams stay open as long as
// ctx, since clients whose stream has broken may be taken for gone.
func (c *clients) introduce(ctx context.Context, o options) error {
	var group errgroup.Group
	for i := range *c {
		client := &(*c)[i]
		group.Go(func() error { return client.introduce(ctx, o) })
	}
	return group.Wait()
}

func (c *client) introduce(ctx context.Context, o options) error {
	stream, err := c.stub.Telemetry(c.as(ctx))
	if err != nil {
		return err
	}
	command := &v2.TelemetryCommand{Command: &v2.TelemetryCommand_Settings{Settings: settingsOf(o)}}
	if err := stream.Send(command); err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("settings were not answered: %w", err)
		}
		if answer.Status != nil {
			if err := checkStatus(answer.Status, "settings"); err != nil {
				return err
			}
		}
		if answer.GetSettings() != nil {
			go drain(stream)
			return nil
		}
	}
}

// settingsOf tells of a simple consumer, which may send as well.
func settingsOf(o options) *v2.Settings {
	clientType := v2.ClientType_SIMPLE_CONSUMER
	return &v2.Settings{
		ClientType:     &clientType,
		RequestTimeout: durationpb.New(callTimeout),
		UserAgent:      &v2.UA{Language: v2.Language_GOLANG, Version: "5.0.0", Platform: "load", Hostname: "load"},
		PubSub: &v2.Settings_Subscription{Subscription: &v2.Subscription{
			Group: &v2.Resource{Name: o.group},
			Subscriptions: []*v2.SubscriptionEntry{{
				Topic:      &v2.Resource{Name: o.topic},
				Expression: &v2.FilterExpression{Type: v2.FilterType_TAG, Expression: "*"},
			}},
			LongPollingTimeout: durationpb.New(pollTime),
		}},
	}
}

func drain(stream v2.MessagingService_TelemetryClient) {
	for {
		if _, err := stream.Recv(); err == nil {
			continue
		}
		return
	}
}
