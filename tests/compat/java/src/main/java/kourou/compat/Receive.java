package kourou.compat;

import java.util.List;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;

/** Receives and acknowledges "count" messages of "topic" as "group", until "patience" polls in a row bring none. */
final class Receive implements Command {
    @Override
    public void run(Arguments arguments, Results results) throws Exception {
        int count = arguments.number("count");
        int patience = arguments.number("patience");
        try (SimpleConsumer consumer = ClientServiceProvider.loadService()
                .newSimpleConsumerBuilder()
                .setClientConfiguration(arguments.configuration())
                .setConsumerGroup(arguments.text("group"))
                .setSubscriptionExpressions(arguments.subscription())
                .setAwaitDuration(arguments.seconds("await_s", 1))
                .build()) {
            int empty = 0;
            while (count > 0 && empty < patience) {
                List<MessageView> messages = consumer.receive(32, arguments.seconds("invisible_s", 30));
                empty = messages.isEmpty() ? empty + 1 : 0;
                for (MessageView message : messages) {
                    consumer.ack(message);
                    results.received(message);
                    count--;
                }
            }
        }
    }
}
