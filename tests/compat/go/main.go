// Runs commands with the official client, which speaks TLS, side by side, until its standard input ends. Each line of that
// is a JSON object: {"run": number, "command": name, "endpoints": ..., "arguments": {...}} begins one, {"run": number,
// "order": {...}} tells it something while it runs. On standard output each line is a result of one, {"run": number,
// "result": {...}}, or says that it ended: {"run": number, "done": true} or {"run": number, "error": text}.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-clients/golang/v5"
	"github.com/apache/rocketmq-clients/golang/v5/credentials"
)

const (
	awaitDuration = time.Second
	maxLine       = 64 << 20
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
}

type order struct {
	Stop       bool
	Receive    int32 // So many messages at most; each is acknowledged.
	InvisibleS int64 `json:"invisible_s"`
}

type said struct {
	Run       int
	Command   string
	Endpoints string
	Arguments arguments
	Order     order
}

type run struct {
	number int
	said   said
	orders chan order
}

var writing sync.Mutex

func main() {
	commands := map[string]func(run) error{"produce": produce, "simple": simple}
	running := map[int]run{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var said said
		if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(2)
		}
		if said.Command == "" {
			running[said.Run].orders <- said.Order
			continue
		}
		begun := run{said.Run, said, make(chan order, 16)}
		running[said.Run] = begun
		go func() {
			if err := commands[said.Command](begun); err != nil {
				begun.write("error", err.Error())
			} else {
				begun.write("done", true)
			}
		}()
	}
}

func (r run) write(kind string, value any) {
	writing.Lock()
	defer writing.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"run": r.number, kind: value}); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
}

func configuration(said said) *rocketmq.Config {
	return &rocketmq.Config{
		Endpoint:      said.Endpoints,
		ConsumerGroup: said.Arguments.Group,
		Credentials:   &credentials.SessionCredentials{},
	}
}

// Sends the messages one after the other; tells the id of each.
func produce(run run) error {
	given := run.said.Arguments
	producer, err := rocketmq.NewProducer(configuration(run.said), rocketmq.WithTopics(given.Topic))
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
		run.write("result", message{Id: receipts[0].MessageID, Body: wanted.Body})
	}
	return nil
}

// Receives and acknowledges what it is told to.
func simple(run run) error {
	consumer, err := rocketmq.NewSimpleConsumer(
		configuration(run.said),
		rocketmq.WithAwaitDuration(awaitDuration),
		rocketmq.WithSubscriptionExpressions(map[string]*rocketmq.FilterExpression{run.said.Arguments.Topic: rocketmq.SUB_ALL}),
	)
	if err != nil {
		return err
	}
	if err := consumer.Start(); err != nil {
		return err
	}
	defer consumer.GracefulStop()
	for order := <-run.orders; !order.Stop; order = <-run.orders {
		// An error is also how it tells that nothing came.
		invisible := time.Duration(order.InvisibleS) * time.Second
		messages, err := consumer.Receive(context.Background(), order.Receive, invisible)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		for _, each := range messages {
			if err := consumer.Ack(context.Background(), each); err != nil {
				return err
			}
			run.write("result", seen(each))
		}
		run.write("result", map[string]string{"received": strconv.Itoa(len(messages))})
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
