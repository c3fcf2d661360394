package kourou.hello;

import apache.rocketmq.v2.Definition.ClientType;
import apache.rocketmq.v2.Definition.Code;
import apache.rocketmq.v2.Definition.Encoding;
import apache.rocketmq.v2.Definition.Endpoints;
import apache.rocketmq.v2.Definition.FilterExpression;
import apache.rocketmq.v2.Definition.FilterType;
import apache.rocketmq.v2.Definition.Message;
import apache.rocketmq.v2.Definition.MessageQueue;
import apache.rocketmq.v2.Definition.Permission;
import apache.rocketmq.v2.Definition.Settings;
import apache.rocketmq.v2.Definition.Subscription;
import apache.rocketmq.v2.Definition.SubscriptionEntry;
import apache.rocketmq.v2.Service.AckMessageRequest;
import apache.rocketmq.v2.Service.AckMessageResponse;
import apache.rocketmq.v2.Service.ReceiveMessageRequest;
import apache.rocketmq.v2.Service.ReceiveMessageResponse;
import com.google.protobuf.ByteString;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.GZIPInputStream;

/** Receives messages of a topic for a group and acknowledges them. */
final class Receiver {
  /** How long a broker may wait for messages before it answers that there are none. */
  private static final Duration POLL = Duration.ofSeconds(5);

  /** What is not acknowledged by then comes again, to whichever member of the group asks. */
  private static final Duration INVISIBLE = Duration.ofSeconds(30);

  private static final int BATCH_SIZE = 32;
  private static final int ANY_QUEUE = -1; // of the broker that is asked
  private static final FilterExpression EVERYTHING = // or tags, as in "paid || shipped"
      FilterExpression.newBuilder().setType(FilterType.TAG).setExpression("*").build();

  private final List<Broker> brokers;
  private final String topic;
  private final String group;

  Receiver(Client client, List<Endpoints> accessPoints, String topic, String group) {
    this.brokers = client.brokers(accessPoints, topic, Permission.READ);
    this.topic = topic;
    this.group = group;
  }

  /** Asks the brokers in turn, until enough messages came. Gives up when for so long none came. */
  void receive(int count, Duration idle) {
    SubscriptionEntry all =
        SubscriptionEntry.newBuilder().setTopic(Client.resource(topic)).setExpression(EVERYTHING).build();
    Settings.Builder settings =
        Settings.newBuilder()
            .setClientType(ClientType.SIMPLE_CONSUMER)
            .setSubscription(Subscription.newBuilder().setGroup(Client.resource(group)).addSubscriptions(all));
    try (Session session = new Session(brokers, settings)) {
      int received = 0;
      Instant latest = Instant.now();
      for (int turn = 0; received < count; turn++) {
        Broker broker = brokers.get(turn % brokers.size());
        Duration wait = idle.compareTo(POLL) < 0 ? idle : POLL;
        List<Message> messages = poll(broker, Math.min(BATCH_SIZE, count - received), wait);
        messages.forEach(message -> System.out.println(Lines.show(message)));
        received += messages.size();
        if (!messages.isEmpty()) {
          // Only now that they are dealt with: if we end before, they come again.
          acknowledge(broker, messages);
          latest = Instant.now();
        } else if (!Instant.now().isBefore(latest.plus(idle))) {
          throw new IllegalStateException(
              "%d of %d messages came, and then none for %d s".formatted(received, count, idle.toSeconds()));
        }
      }
    }
  }

  /** One long poll. That there are no messages is no error. */
  private List<Message> poll(Broker broker, int most, Duration wait) {
    ReceiveMessageRequest request =
        ReceiveMessageRequest.newBuilder()
            .setGroup(Client.resource(group))
            .setMessageQueue(MessageQueue.newBuilder().setTopic(Client.resource(topic)).setId(ANY_QUEUE))
            .setFilterExpression(EVERYTHING)
            .setBatchSize(most)
            .setInvisibleDuration(Times.duration(INVISIBLE))
            .setLongPollingTimeout(Times.duration(wait))
            .build();
    List<Message> messages = new ArrayList<>();
    broker.stub(wait.plus(Client.CALL_TIMEOUT)).receiveMessage(request).forEachRemaining(part -> add(part, messages));
    return messages;
  }

  /** Each part is a status, a message, or the time of delivery. */
  private static void add(ReceiveMessageResponse part, List<Message> messages) {
    if (part.hasMessage()) {
      messages.add(unpacked(part.getMessage()));
    } else if (part.hasStatus() && part.getStatus().getCode() != Code.MESSAGE_NOT_FOUND) {
      Refused.check(part.getStatus());
    }
  }

  /** With the body as its sender wrote it: some clients pack large ones. */
  private static Message unpacked(Message message) {
    if (message.getSystemProperties().getBodyEncoding() != Encoding.GZIP) {
      return message;
    }
    try (GZIPInputStream body = new GZIPInputStream(message.getBody().newInput())) {
      return message.toBuilder().setBody(ByteString.readFrom(body)).build();
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  /** Returns when the broker has it on its disk: the messages will not come again. */
  private void acknowledge(Broker broker, List<Message> messages) {
    AckMessageRequest.Builder request =
        AckMessageRequest.newBuilder().setGroup(Client.resource(group)).setTopic(Client.resource(topic));
    for (Message message : messages) {
      request
          .addEntriesBuilder()
          .setMessageId(message.getSystemProperties().getMessageId())
          .setReceiptHandle(message.getSystemProperties().getReceiptHandle());
    }
    AckMessageResponse answer = broker.stub().ackMessage(request.build());
    Refused.check(answer.getStatus());
    answer.getEntriesList().forEach(entry -> Refused.check(entry.getStatus()));
  }
}
