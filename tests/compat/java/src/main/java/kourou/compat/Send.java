package kourou.compat;

import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.producer.Producer;

/** Sends "messages" to "topic", one after the other; tells the id of each. */
final class Send implements Command {
    @Override
    public void run(Arguments arguments, Results results) throws Exception {
        String topic = arguments.text("topic");
        try (Producer producer = ClientServiceProvider.loadService()
                .newProducerBuilder()
                .setClientConfiguration(arguments.configuration())
                .setTopics(topic)
                .build()) {
            for (Message message : Messages.of(arguments)) {
                results.sent(producer.send(message));
            }
        }
    }
}
