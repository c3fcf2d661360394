package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v2 "kourou/hello/gen/apache/rocketmq/v2"
)

const heartbeatInterval = 10 * time.Second // as the official clients; silence tells that a client is gone

// session is a client's presence at brokers: to each of them a telemetry stream with its settings, and heartbeats.
type session struct {
	brokers   []broker
	heartbeat *v2.HeartbeatRequest
	end       context.CancelFunc
}

// join returns when every broker has answered the settings.
func (c *client) join(ctx context.Context, brokers []broker, settings *v2.Settings) (*session, error) {
	host, _ := os.Hostname()
	settings.RequestTimeout = durationpb.New(callTimeout)
	settings.UserAgent = &v2.UA{Language: v2.Language_GOLANG, Version: version, Platform: runtime.GOOS, Hostname: host}
	ctx, end := context.WithCancel(ctx)
	for _, broker := range brokers {
		if err := introduce(ctx, broker, settings); err != nil {
			end()
			return nil, fmt.Errorf("%s does not take our settings: %w", broker.name, err)
		}
	}
	heartbeat := &v2.HeartbeatRequest{ClientType: settings.GetClientType(), Group: settings.GetSubscription().GetGroup()}
	s := &session{brokers, heartbeat, end}
	go s.beat(ctx)
	return s, nil
}

// introduce opens the stream, which then stays open: its end tells the broker that the client is gone. A program that
// lives long opens it again when it breaks.
func introduce(ctx context.Context, broker broker, settings *v2.Settings) error {
	ctx, cancel := context.WithCancel(ctx)
	tooLate := time.AfterFunc(callTimeout, cancel)
	stream, err := broker.stub.Telemetry(ctx)
	if err != nil {
		return err
	}
	command := &v2.TelemetryCommand{Command: &v2.TelemetryCommand_Settings{Settings: settings}}
	if err := stream.Send(command); err != nil && !errors.Is(err, io.EOF) { // after EOF, Recv tells what went wrong
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	tooLate.Stop()
	// Its settings hold what the broker prescribes: batch sizes, waiting times, how long a failed message stays away.
	if err := check(answer.Status); err != nil {
		return err
	}
	go func() {
		for err == nil {
			_, err = stream.Recv() // commands that only consumers with a listener or with transactions get
		}
	}()
	return nil
}

func (s *session) beat(ctx context.Context) {
	ticks := time.NewTicker(heartbeatInterval)
	defer ticks.Stop()
	for {
		for _, broker := range s.brokers {
			_, _ = broker.stub.Heartbeat(ctx, s.heartbeat) // one that fails is made up for by the next
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

// leave says goodbye, so that what the client holds goes to others at once.
func (s *session) leave(ctx context.Context) {
	for _, broker := range s.brokers {
		_, _ = broker.stub.NotifyClientTermination(ctx, &v2.NotifyClientTerminationRequest{Group: s.heartbeat.Group})
	}
	s.end()
}
