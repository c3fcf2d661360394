package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	v2 "kourou/benchmarks/load/gen"
)

// request is a SendMessageRequest encoded once: what differs from call to call has a fixed length and is written over.
// It must not be touched while a call with it is under way.
type request struct {
	data   []byte
	topics []int // where the topic's name stands, for each message
	ids    []int // where the message id's number stands, 16 hexadecimal digits
	bodies []int
}

const idNumberChars = 16

// newRequest has `batch` messages with random bodies of bodyBytes (at least 8). All topics it is used for have names
// as long as topic. Ids begin with a prefix of this request's own, so that only their numbers have to be unique.
func newRequest(topic string, batch, bodyBytes int) (*request, error) {
	prefix := make([]byte, 9)
	_, _ = rand.Read(prefix)
	id := fmt.Sprintf("%X%016d", prefix, 0)
	body := make([]byte, max(bodyBytes, 8))
	_, _ = rand.Read(body)
	message := &v2.Message{
		Topic: &v2.Resource{Name: topic},
		Body:  body,
		SystemProperties: &v2.SystemProperties{
			MessageId:     id,
			MessageType:   v2.MessageType_NORMAL,
			BodyEncoding:  v2.Encoding_IDENTITY,
			BornTimestamp: timestamppb.New(time.Now()),
			BornHost:      "load",
		},
	}
	one, err := proto.Marshal(&v2.SendMessageRequest{Messages: []*v2.Message{message}})
	if err != nil {
		return nil, err
	}
	topicAt := bytes.Index(one, []byte(topic))
	bodyAt := bytes.Index(one, body)
	idAt := bytes.Index(one, []byte(id)) + len(id) - idNumberChars
	r := &request{}
	for i := range batch {
		start := i * len(one)
		r.data = append(r.data, one...) // the messages are the only field: requests add up by being joined
		r.topics = append(r.topics, start+topicAt)
		r.bodies = append(r.bodies, start+bodyAt)
		r.ids = append(r.ids, start+idAt)
	}
	return r, nil
}

func (r *request) setTopic(name string) {
	for _, at := range r.topics {
		copy(r.data[at:], name)
	}
}

// setNumbers gives the messages the ids first, first+1 ...
func (r *request) setNumbers(first uint64) {
	var number [8]byte
	for i, at := range r.ids {
		binary.BigEndian.PutUint64(number[:], first+uint64(i))
		hex.Encode(r.data[at:at+idNumberChars], number[:])
	}
}

// setTime writes a time into the beginning of each body, where timeOf finds it.
func (r *request) setTime(at time.Time) {
	for _, start := range r.bodies {
		binary.BigEndian.PutUint64(r.data[start:], uint64(at.UnixNano()))
	}
}

func timeOf(message *v2.Message) time.Time {
	return time.Unix(0, int64(binary.BigEndian.Uint64(message.Body)))
}

// topicNames are all as long as the first.
func topicNames(o options) []string {
	if o.topics == 1 {
		return []string{o.topic}
	}
	names := make([]string, o.topics)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%04d", o.topic, i)
	}
	return names
}
