package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	v2 "kourou/hello/gen/apache/rocketmq/v2"
)

// send spreads the messages over the brokers of the topic. On the broker each goes to a queue of the broker's choice.
func send(ctx context.Context, o options) error {
	client := newClient()
	defer client.close()
	brokers, err := client.brokers(ctx, o, v2.Permission_WRITE)
	if err != nil {
		return err
	}
	session, err := client.join(ctx, brokers, &v2.Settings{
		ClientType: v2.ClientType_PRODUCER.Enum(),
		PubSub:     &v2.Settings_Publishing{Publishing: &v2.Publishing{Topics: []*v2.Resource{{Name: o.topic}}}},
	})
	if err != nil {
		return err
	}
	defer session.leave(ctx)
	for number := range o.count {
		message := newMessage(o.topic, number)
		if err := sendOne(ctx, brokers, number, message); err != nil {
			return err
		}
		fmt.Println(show(message))
	}
	return nil
}

// sendOne returns when a broker has the message on its disk. One that is down, or takes no writes because it is about
// to leave the cluster, is passed over. A send that broke off may have been stored, so the message can come twice then:
// consumers tell by its id.
func sendOne(ctx context.Context, brokers []broker, number int, message *v2.Message) (err error) {
	for try := range brokers {
		broker := brokers[(number+try)%len(brokers)]
		var answer *v2.SendMessageResponse
		answer, err = broker.stub.SendMessage(ctx, &v2.SendMessageRequest{Messages: []*v2.Message{message}})
		if err == nil {
			return check(answer.Entries[0].Status) // one for each message of the request
		}
		if status.Code(err) != codes.Unavailable && !refusedWith(err, v2.Code_FORBIDDEN) {
			return err
		}
	}
	return err
}

func newMessage(topic string, number int) *v2.Message {
	host, _ := os.Hostname()
	tag := "greeting"
	return &v2.Message{
		Topic:          &v2.Resource{Name: topic},
		Body:           fmt.Appendf(nil, "Hello ✓ number %d from Go", number),
		UserProperties: map[string]string{"language": "Go", "number": fmt.Sprint(number)},
		SystemProperties: &v2.SystemProperties{
			MessageId:     fmt.Sprintf("01%X", random(16)),              // the sender's to choose; it has to be unique
			Tag:           &tag,                                         // consumers can ask for messages by their tag
			Keys:          []string{"Go", fmt.Sprintf("Go-%d", number)}, // by them it can be looked up
			MessageType:   v2.MessageType_NORMAL,
			BodyEncoding:  v2.Encoding_IDENTITY,
			BornTimestamp: timestamppb.Now(),
			BornHost:      host,
		},
	}
}

// show makes one line of a message.
func show(message *v2.Message) string {
	properties := make([]string, 0, len(message.UserProperties))
	for _, name := range slices.Sorted(maps.Keys(message.UserProperties)) {
		properties = append(properties, name+"="+message.UserProperties[name])
	}
	system := message.SystemProperties
	keys := strings.Join(system.Keys, ",")
	body := string(message.Body)
	return strings.Join([]string{system.MessageId, system.GetTag(), keys, strings.Join(properties, ","), body}, "\t")
}
