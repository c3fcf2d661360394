package kourou.compat;

import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.producer.Producer;

/** Recalls the message of "topic" by its "handle"; tells its id, or why it could not. */
final class Recall implements Command {
    @Override
    public void run(Arguments arguments, Results results) throws Exception {
        try (Producer producer = ClientServiceProvider.loadService()
                .newProducerBuilder()
                .setClientConfiguration(arguments.configuration())
                .build()) {
            try {
                var receipt = producer.recallMessage(arguments.text("topic"), arguments.text("handle"));
                results.told("recalled", receipt.getMessageId().toString());
            } catch (ClientException problem) {
                results.told("refused", problem.getMessage());
            }
        }
    }
}
