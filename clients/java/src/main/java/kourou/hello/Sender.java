package kourou.hello;

import apache.rocketmq.v2.Definition.ClientType;
import apache.rocketmq.v2.Definition.Code;
import apache.rocketmq.v2.Definition.Encoding;
import apache.rocketmq.v2.Definition.Endpoints;
import apache.rocketmq.v2.Definition.Message;
import apache.rocketmq.v2.Definition.MessageType;
import apache.rocketmq.v2.Definition.Permission;
import apache.rocketmq.v2.Definition.Publishing;
import apache.rocketmq.v2.Definition.Settings;
import apache.rocketmq.v2.Definition.SystemProperties;
import apache.rocketmq.v2.Service.SendMessageRequest;
import apache.rocketmq.v2.Service.SendMessageResponse;
import com.google.protobuf.ByteString;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.List;
import java.util.Locale;
import java.util.UUID;

/** Spreads messages over the brokers of a topic. On the broker each goes to a queue of the broker's choice. */
final class Sender {
  private final List<Broker> brokers;
  private final String topic;

  Sender(Client client, List<Endpoints> accessPoints, String topic) {
    this.brokers = client.brokers(accessPoints, topic, Permission.WRITE);
    this.topic = topic;
  }

  void send(int count) {
    Settings.Builder settings =
        Settings.newBuilder()
            .setClientType(ClientType.PRODUCER)
            .setPublishing(Publishing.newBuilder().addTopics(Client.resource(topic)));
    try (Session session = new Session(brokers, settings)) {
      for (int number = 0; number < count; number++) {
        Message message = message(number);
        send(message, number);
        System.out.println(Lines.show(message));
      }
    }
  }

  /**
   * Returns when a broker has the message on its disk. One that is down, or takes no writes because it is about to
   * leave the cluster, is passed over. A send that broke off may have been stored, so the message can come twice then:
   * consumers tell by its id.
   */
  private void send(Message message, int number) {
    SendMessageRequest request = SendMessageRequest.newBuilder().addMessages(message).build();
    for (int attempt = 0; ; attempt++) {
      Broker broker = brokers.get((number + attempt) % brokers.size());
      try {
        SendMessageResponse answer = broker.stub().sendMessage(request);
        Refused.check(answer.getStatus());
        Refused.check(answer.getEntries(0).getStatus()); // one for each message of the request
        return;
      } catch (StatusRuntimeException | Refused error) {
        if (attempt == brokers.size() - 1 || !isElsewherePossible(error)) {
          throw error;
        }
      }
    }
  }

  private static boolean isElsewherePossible(RuntimeException error) {
    return error instanceof Refused refused
        ? refused.code == Code.FORBIDDEN
        : Status.fromThrowable(error).getCode() == Status.Code.UNAVAILABLE;
  }

  private Message message(int number) {
    SystemProperties.Builder properties =
        SystemProperties.newBuilder()
            .setMessageId(newId())
            .setTag("greeting") // consumers can ask for messages by their tag
            .addKeys("Java") // by them it can be looked up
            .addKeys("Java-" + number)
            .setMessageType(MessageType.NORMAL)
            .setBodyEncoding(Encoding.IDENTITY)
            .setBornTimestamp(Times.now())
            .setBornHost(Client.HOST);
    return Message.newBuilder()
        .setTopic(Client.resource(topic))
        .setBody(ByteString.copyFromUtf8("Hello ✓ number " + number + " from Java"))
        .putUserProperties("language", "Java")
        .putUserProperties("number", Integer.toString(number))
        .setSystemProperties(properties)
        .build();
  }

  /** The sender's to choose; it has to be unique. */
  private static String newId() {
    return "01" + UUID.randomUUID().toString().replace("-", "").toUpperCase(Locale.ROOT);
  }
}
