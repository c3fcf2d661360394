// Load puts load on one server of apache.rocketmq.v2 and prints what it measured as one line of JSON.
//
//	load send    -address 127.0.0.1:10911 -topic bench              for -seconds, or until -messages are sent
//	load receive -address 127.0.0.1:10911 -topic bench -group g     until -messages are received and acknowledged
//	load latency -address 127.0.0.1:10911 -topic bench -group g     -rate messages a second, from send to receive
//	load polls   -address 127.0.0.1:10911 -topic bench -group g     -in-flight long polls that wait, for -seconds
//
// Every answer is checked: the first that is not OK ends the run with a message and exit code 1. The topic and the
// group have to be there.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

type options struct {
	address     string
	connections int
	inFlight    int
	topic       string
	topics      int
	queues      int
	group       string
	groups      int
	batch       int
	bodyBytes   int
	ackBatch    bool
	settings    bool
	oneEntry    bool
	rate        int
	pollers     int
	poll        time.Duration
	messages    int64
	warmup      time.Duration
	window      time.Duration
}

// callTimeout is a deadline as clients set one; no call of a run that goes well comes near it.
const callTimeout = 30 * time.Second

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: load send|receive|latency|polls [flags]"))
	}
	modes := map[string]func(context.Context, *clients, options) (any, error){
		"send": send, "receive": receive, "latency": latency, "polls": polls,
	}
	run, known := modes[os.Args[1]]
	if !known {
		fail(fmt.Errorf("unknown mode %q: send, receive, latency or polls", os.Args[1]))
	}
	options := parse(os.Args[2:])
	clients, err := dial(options.address, options.connections)
	if err != nil {
		fail(err)
	}
	if options.settings {
		if err := clients.introduce(context.Background(), options); err != nil {
			fail(err)
		}
	}
	result, err := run(context.Background(), clients, options)
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fail(err)
	}
}

func parse(args []string) options {
	var o options
	var seconds, warmupSeconds, pollSeconds float64
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	flags.StringVar(&o.address, "address", "127.0.0.1:10911", "the server, host:port")
	flags.IntVar(&o.connections, "connections", 4, "connections, each a client of its own")
	flags.IntVar(&o.inFlight, "in-flight", 64, "calls under way at any time, over all connections")
	flags.StringVar(&o.topic, "topic", "bench", "the topic; with -topics, what their names begin with")
	flags.IntVar(&o.topics, "topics", 1, "with more than 1: send to TOPIC-0000, TOPIC-0001 ... in turn")
	flags.IntVar(&o.queues, "queues", 0, "polls: ask for each of so many queues of a topic by itself; 0: for all together")
	flags.StringVar(&o.group, "group", "bench", "the consumer group; with -groups, what their names begin with")
	flags.IntVar(&o.groups, "groups", 1, "polls: with more than 1: clients are in GROUP-0000, GROUP-0001 ... in turn")
	flags.IntVar(&o.batch, "batch", 1, "messages a call")
	flags.IntVar(&o.bodyBytes, "body-bytes", 1024, "size of a message's body")
	flags.BoolVar(&o.ackBatch, "ack-batch", true, "acknowledge what one call received with one call, else one by one")
	flags.BoolVar(&o.settings, "settings", false, "tell who this is before, as official clients do: RocketMQ demands it")
	flags.BoolVar(&o.oneEntry, "one-entry", false, "a send of several messages is answered with one entry, as RocketMQ does")
	flags.IntVar(&o.rate, "rate", 100, "latency: messages a second")
	flags.IntVar(&o.pollers, "pollers", 4, "latency: long polls waiting; 0 measures the sends alone")
	flags.Float64Var(&pollSeconds, "poll-seconds", 20, "polls: how long one waits")
	flags.Int64Var(&o.messages, "messages", 0, "end after so many messages")
	flags.Float64Var(&seconds, "seconds", 5, "how long to measure, without -messages")
	flags.Float64Var(&warmupSeconds, "warmup-seconds", 0.5, "load before that, which does not count")
	_ = flags.Parse(args)
	o.window = time.Duration(seconds * float64(time.Second))
	o.warmup = time.Duration(warmupSeconds * float64(time.Second))
	o.poll = time.Duration(pollSeconds * float64(time.Second))
	return o
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "load:", err)
	os.Exit(1)
}
