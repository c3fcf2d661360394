package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	v2 "kourou/hello/gen/apache/rocketmq/v2"
)

const (
	version         = "1.0.0"
	callTimeout     = 10 * time.Second
	maxMessageBytes = 16 << 20 // gRPC's own limit is 4 MiB, and so is a body's: a message is larger than its body
)

// client is what servers take for one client: an id that goes with every call, over whatever connections.
type client struct {
	id          string
	connections map[string]*grpc.ClientConn // by address
}

func newClient() *client {
	host, _ := os.Hostname()
	id := fmt.Sprintf("%s@%d@%x", host, os.Getpid(), random(4))
	return &client{id, map[string]*grpc.ClientConn{}}
}

// connection connects with the first call, and again after it broke.
func (c *client) connection(address string) (*grpc.ClientConn, error) {
	if known := c.connections[address]; known != nil {
		return known, nil
	}
	connection, err := grpc.NewClient(
		address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithUnaryInterceptor(c.unary),
		grpc.WithStreamInterceptor(c.stream),
	)
	if err != nil {
		return nil, err
	}
	c.connections[address] = connection
	return connection, nil
}

func (c *client) close() {
	for _, connection := range c.connections {
		_ = connection.Close()
	}
}

// unary stands around every plain call: it adds the headers and a deadline, and makes an error of the answer's status.
func (c *client) unary(
	ctx context.Context, method string, request, answer any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	ctx, cancel := context.WithTimeout(c.withHeaders(ctx), callTimeout)
	defer cancel()
	if err := invoke(ctx, method, request, answer, connection, options...); err != nil {
		return fmt.Errorf("%s: %w", connection.Target(), err)
	}
	return check(answer.(interface{ GetStatus() *v2.Status }).GetStatus())
}

// stream stands around every call that streams. Its caller sets the deadline: telemetry has none.
func (c *client) stream(
	ctx context.Context, description *grpc.StreamDesc, connection *grpc.ClientConn, method string, open grpc.Streamer,
	options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return open(c.withHeaders(ctx), description, connection, method, options...)
}

func (c *client) withHeaders(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx,
		"x-mq-client-id", c.id, "x-mq-language", "GOLANG", "x-mq-client-version", version, "x-mq-protocol", "v2")
}

// refusal is an answer whose own status is not OK; gRPC's status tells of the transport alone.
type refusal struct {
	code    v2.Code
	message string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%s (%d): %s", r.code, r.code, r.message)
}

// check lets MULTIPLE_RESULTS pass: the entries differ then, and have statuses of their own.
func check(status *v2.Status) error {
	if code := status.GetCode(); code != v2.Code_OK && code != v2.Code_MULTIPLE_RESULTS {
		return &refusal{code, status.GetMessage()}
	}
	return nil
}

// refusedWith says whether an error is a refusal with this code.
func refusedWith(err error, code v2.Code) bool {
	var refused *refusal
	return errors.As(err, &refused) && refused.code == code
}

type broker struct {
	name string
	stub v2.MessagingServiceClient
}

// brokers are those whose queues of the topic may be used that way. A program that lives long asks again every 30 s:
// brokers come and go.
func (c *client) brokers(ctx context.Context, o options, way v2.Permission) ([]broker, error) {
	queues, err := c.route(ctx, o)
	if err != nil {
		return nil, err
	}
	var brokers []broker
	known := map[string]bool{}
	for _, queue := range queues {
		allowed := queue.Permission == way || queue.Permission == v2.Permission_READ_WRITE
		name := queue.Broker.Name
		if !allowed || known[name] {
			continue
		}
		known[name] = true
		// Where there are several addresses, any of them will do.
		connection, err := c.connection(hostPort(queue.Broker.Endpoints))
		if err != nil {
			return nil, err
		}
		brokers = append(brokers, broker{name, v2.NewMessagingServiceClient(connection)})
	}
	if len(brokers) == 0 {
		return nil, fmt.Errorf("no broker of topic %s has the permission %s at present", o.topic, way)
	}
	return brokers, nil
}

// route asks one access point after the other until one answers.
func (c *client) route(ctx context.Context, o options) ([]*v2.MessageQueue, error) {
	var failures error
	for _, endpoints := range o.endpoints {
		connection, err := c.connection(hostPort(endpoints))
		if err != nil {
			return nil, err
		}
		// The endpoints say by which way we came: the brokers' addresses in the answer are those for the same way.
		request := &v2.QueryRouteRequest{Topic: &v2.Resource{Name: o.topic}, Endpoints: endpoints}
		answer, err := v2.NewMessagingServiceClient(connection).QueryRoute(ctx, request)
		if err == nil {
			return answer.MessageQueues, nil
		}
		if refused := new(refusal); errors.As(err, &refused) {
			return nil, err
		}
		failures = errors.Join(failures, err)
	}
	return nil, failures
}

// parseEndpoints reads an access point, "host:port".
func parseEndpoints(text string) (*v2.Endpoints, error) {
	host, digits, err := net.SplitHostPort(text)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return nil, err
	}
	scheme := v2.AddressScheme_DOMAIN_NAME
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		scheme = v2.AddressScheme_IPv4
	} else if err == nil {
		scheme = v2.AddressScheme_IPv6
	}
	return &v2.Endpoints{Scheme: scheme, Addresses: []*v2.Address{{Host: host, Port: int32(port)}}}, nil
}

func hostPort(endpoints *v2.Endpoints) string {
	first := endpoints.Addresses[0]
	return net.JoinHostPort(first.Host, strconv.Itoa(int(first.Port)))
}

func random(bytes int) []byte {
	drawn := make([]byte, bytes)
	_, _ = rand.Read(drawn) // never fails
	return drawn
}
