// Runs one command with the official client, which speaks TLS: compat COMMAND ENDPOINTS, with its arguments as a JSON
// object on standard input. Each result is a line of JSON on standard output.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	rocketmq "github.com/apache/rocketmq-clients/golang/v5"
	"github.com/apache/rocketmq-clients/golang/v5/credentials"
)

const (
	awaitDuration     = time.Second
	invisibleDuration = 30 * time.Second
)

type message struct {
	Id         string            `json:"id,omitempty"`
	Body       string            `json:"body"` // Hexadecimal.
	Tag        string            `json:"tag,omitempty"`
	Keys       []string          `json:"keys,omitempty"`
	Properties map[string]string `json:"properties,omitempty"`
	Attempt    int32             `json:"attempt,omitempty"`
}

type arguments struct {
	Topic    string
	Group    string
	Messages []message
	Count    int
	Patience int // So many polls in a row may bring nothing.
}

func main() {
	commands := map[string]func(string, arguments) error{"send": send, "receive": receive}
	if len(os.Args) != 3 || commands[os.Args[1]] == nil {
		fail(2, fmt.Errorf("usage: compat send|receive ENDPOINTS"))
	}
	var given arguments
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		fail(2, err)
	}
	if err := commands[os.Args[1]](os.Args[2], given); err != nil {
		fail(1, err)
	}
}

func fail(code int, err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(code)
}

func configuration(endpoints string, group string) *rocketmq.Config {
	return &rocketmq.Config{
		Endpoint:      endpoints,
		ConsumerGroup: group,
		Credentials:   &credentials.SessionCredentials{},
	}
}

func write(result message) error {
	return json.NewEncoder(os.Stdout).Encode(result)
}

// Sends the messages one after the other; tells the id of each.
func send(endpoints string, given arguments) error {
	producer, err := rocketmq.NewProducer(configuration(endpoints, ""), rocketmq.WithTopics(given.Topic))
	if err != nil {
		return err
	}
	if err := producer.Start(); err != nil {
		return err
	}
	defer producer.GracefulStop()
	for _, wanted := range given.Messages {
		body, err := hex.DecodeString(wanted.Body)
		if err != nil {
			return err
		}
		made := &rocketmq.Message{Topic: given.Topic, Body: body}
		if wanted.Tag != "" {
			made.SetTag(wanted.Tag)
		}
		made.SetKeys(wanted.Keys...)
		for name, value := range wanted.Properties {
			made.AddProperty(name, value)
		}
		receipts, err := producer.Send(context.Background(), made)
		if err != nil {
			return err
		}
		if err := write(message{Id: receipts[0].MessageID, Body: wanted.Body}); err != nil {
			return err
		}
	}
	return nil
}

// Receives and acknowledges so many messages.
func receive(endpoints string, given arguments) error {
	consumer, err := rocketmq.NewSimpleConsumer(
		configuration(endpoints, given.Group),
		rocketmq.WithAwaitDuration(awaitDuration),
		rocketmq.WithSubscriptionExpressions(map[string]*rocketmq.FilterExpression{given.Topic: rocketmq.SUB_ALL}),
	)
	if err != nil {
		return err
	}
	if err := consumer.Start(); err != nil {
		return err
	}
	defer consumer.GracefulStop()
	for left, empty := given.Count, 0; left > 0 && empty < given.Patience; {
		// An error is also how it tells that nothing came.
		messages, err := consumer.Receive(context.Background(), 32, invisibleDuration)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			empty++
			continue
		}
		empty = 0
		for _, each := range messages {
			if err := consumer.Ack(context.Background(), each); err != nil {
				return err
			}
			if err := write(seen(each)); err != nil {
				return err
			}
			left--
		}
	}
	return nil
}

func seen(received *rocketmq.MessageView) message {
	result := message{
		Id:         received.GetMessageId(),
		Body:       hex.EncodeToString(received.GetBody()),
		Keys:       received.GetKeys(),
		Properties: received.GetProperties(),
		Attempt:    received.GetDeliveryAttempt(),
	}
	if tag := received.GetTag(); tag != nil {
		result.Tag = *tag
	}
	return result
}
