package kourou.hello;

import apache.rocketmq.v2.Definition.Endpoints;
import apache.rocketmq.v2.Definition.MessageQueue;
import apache.rocketmq.v2.Definition.Permission;
import apache.rocketmq.v2.Definition.Resource;
import apache.rocketmq.v2.MessagingServiceGrpc;
import apache.rocketmq.v2.Service.QueryRouteRequest;
import apache.rocketmq.v2.Service.QueryRouteResponse;
import io.grpc.ClientInterceptor;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** What servers take for one client: an id that goes with every call, over whatever connections. */
final class Client implements AutoCloseable {
  static final String VERSION = "1.0.0";
  static final Duration CALL_TIMEOUT = Duration.ofSeconds(10);
  static final String HOST = host();

  /** gRPC's own limit is 4 MiB, and so is a body's: a message is larger than its body. */
  private static final int MAX_MESSAGE_BYTES = 16 << 20;

  private final ClientInterceptor headers = MetadataUtils.newAttachHeadersInterceptor(headers());
  private final Map<String, ManagedChannel> channels = new HashMap<>();

  private static Metadata headers() {
    Metadata headers = new Metadata();
    String id = HOST + "@" + ProcessHandle.current().pid() + "@" + UUID.randomUUID();
    Map.of("x-mq-client-id", id, "x-mq-language", "JAVA", "x-mq-client-version", VERSION, "x-mq-protocol", "v2")
        .forEach((name, value) -> headers.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value));
    return headers;
  }

  /** Connects with the first call, and again after the connection broke. */
  ManagedChannel channel(String address) {
    return channels.computeIfAbsent(
        address,
        target ->
            ManagedChannelBuilder.forTarget(target)
                .usePlaintext()
                .maxInboundMessageSize(MAX_MESSAGE_BYTES)
                .intercept(headers)
                .build());
  }

  /**
   * The brokers whose queues of the topic may be used that way. A program that lives long asks again every 30 s:
   * brokers come and go.
   */
  List<Broker> brokers(List<Endpoints> accessPoints, String topic, Permission way) {
    Map<String, Broker> brokers = new LinkedHashMap<>();
    for (MessageQueue queue : route(accessPoints, topic)) {
      if (queue.getPermission() == way || queue.getPermission() == Permission.READ_WRITE) {
        String name = queue.getBroker().getName();
        String address = AccessPoints.hostPort(queue.getBroker().getEndpoints());
        brokers.computeIfAbsent(name, known -> new Broker(name, channel(address)));
      }
    }
    if (brokers.isEmpty()) {
      throw new IllegalStateException("no broker of topic " + topic + " has the permission " + way + " at present");
    }
    return List.copyOf(brokers.values());
  }

  /** The queues of a topic. Asks one access point after the other until one answers. */
  private List<MessageQueue> route(List<Endpoints> accessPoints, String topic) {
    List<String> failures = new ArrayList<>();
    for (Endpoints endpoints : accessPoints) {
      // The endpoints say by which way we came: the brokers' addresses in the answer are those for the same way.
      QueryRouteRequest request =
          QueryRouteRequest.newBuilder().setTopic(resource(topic)).setEndpoints(endpoints).build();
      String address = AccessPoints.hostPort(endpoints);
      try {
        QueryRouteResponse answer =
            MessagingServiceGrpc.newBlockingStub(channel(address))
                .withDeadlineAfter(CALL_TIMEOUT)
                .queryRoute(request);
        Refused.check(answer.getStatus());
        return answer.getMessageQueuesList();
      } catch (StatusRuntimeException error) {
        failures.add(address + ": " + error.getMessage());
      }
    }
    throw new IllegalStateException(String.join("\n", failures));
  }

  private static String host() {
    try {
      return InetAddress.getLocalHost().getHostName();
    } catch (UnknownHostException error) {
      return "unknown"; // it has no address; its name is for people only
    }
  }

  static Resource resource(String name) {
    return Resource.newBuilder().setName(name).build();
  }

  @Override
  public void close() {
    channels.values().forEach(ManagedChannel::shutdownNow);
  }
}
