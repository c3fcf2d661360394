package kourou.compat;

import com.google.gson.JsonObject;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;

/**
 * A simple consumer of "topic" for "group", which obeys until it is to stop. "receive": so many messages at most, each told,
 * then how many they were; "ack": with that it acknowledges them. "settle" and "change" name a message by its id and "attempt":
 * acknowledge it, or change its invisible time to "seconds". With "asynchronously" it uses the client's other methods.
 */
final class Simple implements Command {
    private static final Duration AWAIT = Duration.ofSeconds(1);

    @Override
    public void run(Arguments arguments, Orders orders, Results results) throws Exception {
        try (SimpleConsumer consumer = ClientServiceProvider.loadService()
                .newSimpleConsumerBuilder()
                .setClientConfiguration(arguments.configuration())
                .setConsumerGroup(arguments.text("group"))
                .setSubscriptionExpressions(arguments.subscription())
                .setAwaitDuration(AWAIT)
                .build()) {
            Held held = new Held(consumer, results);
            orders.each(order -> {
                try {
                    held.obey(order);
                } catch (Exception problem) {
                    results.refused(problem);
                }
            });
        } catch (ClientException | IllegalStateException problem) {
            results.refused(problem); // it cannot be started
        }
    }

    /** The messages that it has, or had. */
    private record Held(SimpleConsumer consumer, Results results, Map<String, MessageView> messages) {
        Held(SimpleConsumer consumer, Results results) {
            this(consumer, results, new HashMap<>());
        }

        void obey(JsonObject order) throws Exception {
            if (order.has("receive")) {
                receive(order);
            } else if (order.has("settle")) {
                ack(named(order, "settle"), order.has("asynchronously"));
                results.told("settled", order.get("settle").getAsString());
            } else {
                change(named(order, "change"), order);
                results.told("changed", order.get("change").getAsString());
            }
        }

        private void receive(JsonObject order) throws Exception {
            int count = order.get("receive").getAsInt();
            Duration invisible = Duration.ofSeconds(order.get("invisible_s").getAsInt());
            List<MessageView> received = order.has("asynchronously")
                    ? consumer.receiveAsync(count, invisible).get()
                    : consumer.receive(count, invisible);
            for (MessageView message : received) {
                messages.put(message.getMessageId() + "/" + message.getDeliveryAttempt(), message);
                if (order.has("ack")) {
                    ack(message, order.has("asynchronously"));
                }
                results.received(message);
            }
            results.told("received", Integer.toString(received.size()));
        }

        private void ack(MessageView message, boolean asynchronously) throws Exception {
            if (asynchronously) {
                consumer.ackAsync(message).get();
            } else {
                consumer.ack(message);
            }
        }

        private void change(MessageView message, JsonObject order) throws Exception {
            Duration invisible = Duration.ofSeconds(order.get("seconds").getAsInt());
            if (order.has("asynchronously")) {
                consumer.changeInvisibleDurationAsync(message, invisible).get();
            } else {
                consumer.changeInvisibleDuration(message, invisible);
            }
        }

        private MessageView named(JsonObject order, String verb) {
            return messages.get(order.get(verb).getAsString() + "/" + order.get("attempt").getAsInt());
        }
    }
}
