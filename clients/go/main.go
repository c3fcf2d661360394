// Hello is a small client of Kourou in Go, made from the .proto files: it creates a topic and a group, and sends,
// receives and acknowledges messages.
//
//	go generate           makes gen/ from ../../proto; needs buf in the PATH (../../.venv/bin has it)
//	go run . create       a topic and a group
//	go run . send         so many messages
//	go run . receive      so many messages
//	go run .              all three
//
// -help lists the flags. Sent and received messages come out as one line each: id, tag, keys, properties and body.
package main

//go:generate buf generate

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	v2 "kourou/hello/gen/apache/rocketmq/v2"
)

type options struct {
	endpoints []*v2.Endpoints
	admin     string
	topic     string
	group     string
	count     int
	idle      time.Duration
}

type command func(context.Context, options) error

func main() {
	commands, options := parse(os.Args[1:])
	for _, run := range commands {
		if err := run(context.Background(), options); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
	}
}

// parse ends the program when the command line makes no sense.
func parse(args []string) ([]command, options) {
	var o options
	flags := flag.NewFlagSet("hello", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: hello [create|send|receive] [flags]; without a command, all three")
		flags.PrintDefaults()
	}
	endpoints := flags.String("endpoints", "127.0.0.1:8081", "access points, separated by commas")
	flags.StringVar(&o.admin, "admin", "127.0.0.1:9080", "the admin service")
	flags.StringVar(&o.topic, "topic", "hello", "the topic")
	flags.StringVar(&o.group, "group", "readers", "the consumer group")
	flags.IntVar(&o.count, "count", 10, "messages to send or receive")
	idle := flags.Int("idle-s", 30, "receive: give up after so many seconds without a message")

	commands := []command{create, send, receive}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		one, known := map[string]command{"create": create, "send": send, "receive": receive}[args[0]]
		if !known {
			flags.Usage()
			os.Exit(2)
		}
		commands, args = []command{one}, args[1:]
	}
	_ = flags.Parse(args)
	o.idle = time.Duration(*idle) * time.Second
	for _, text := range strings.Split(*endpoints, ",") {
		one, err := parseEndpoints(text)
		if err != nil {
			fmt.Fprintln(flags.Output(), "error: -endpoints:", err)
			os.Exit(2)
		}
		o.endpoints = append(o.endpoints, one)
	}
	return commands, o
}
