package main

import (
	"context"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that prepared wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	v2 "kourou/benchmarks/load/gen"
)

const maxMessageBytes = 16 << 20

// client is what a server takes for one client: a connection with a client id.
type client struct {
	id         string
	connection *grpc.ClientConn
	stub       v2.MessagingServiceClient
}

type clients []client

func dial(address string, connections int) (*clients, error) {
	all := make(clients, connections)
	for i := range all {
		connection, err := grpc.NewClient(
			"passthrough:///"+address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(
				grpc.ForceCodecV2(prepared{encoding.GetCodecV2("proto")}),
				grpc.MaxCallRecvMsgSize(maxMessageBytes),
			),
		)
		if err != nil {
			return nil, err
		}
		id := fmt.Sprintf("load-%d-%d", os.Getpid(), i)
		all[i] = client{id, connection, v2.NewMessagingServiceClient(connection)}
	}
	return &all, nil
}

// of gives the client of a worker: connections are dealt out in turn.
func (c *clients) of(worker int) *client {
	return &(*c)[worker%len(*c)]
}

// as adds the headers of the client to the context of its calls.
func (c *client) as(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "x-mq-client-id", c.id, "x-mq-protocol", "v2", "x-mq-language", "GO", "x-mq-client-version", "5.0.0")
}

// prepared is the codec of protobuf, but bytes are sent as they are.
type prepared struct{ encoding.CodecV2 }

func (c prepared) Marshal(message any) (mem.BufferSlice, error) {
	if data, ok := message.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(data)}, nil
	}
	return c.CodecV2.Marshal(message)
}

func checkStatus(status *v2.Status, of string) error {
	if status.GetCode() != v2.Code_OK {
		return fmt.Errorf("%s was answered %s: %s", of, status.GetCode(), status.GetMessage())
	}
	return nil
}
