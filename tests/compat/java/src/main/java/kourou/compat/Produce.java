package kourou.compat;

import com.google.gson.JsonObject;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.ProducerBuilder;
import org.apache.rocketmq.client.apis.producer.SendReceipt;
import org.apache.rocketmq.client.apis.producer.Transaction;
import org.apache.rocketmq.client.apis.producer.TransactionResolution;

/**
 * A producer of "topic". It obeys its arguments, and with "stays" further orders: sends "messages", all at once with
 * "asynchronously", or each in a transaction that ends by "end" (commit, rollback, open); recalls the message with the handle
 * "recall". Tells the id of each message, and what was refused. Asked about an open transaction it says "answer" (COMMIT,
 * ROLLBACK, UNKNOWN).
 */
final class Produce implements Command {
    @Override
    public void run(Arguments arguments, Orders orders, Results results) throws Exception {
        ProducerBuilder builder = ClientServiceProvider.loadService()
                .newProducerBuilder()
                .setClientConfiguration(arguments.configuration())
                .setTopics(arguments.text("topic"));
        if (arguments.has("answer")) {
            TransactionResolution answer = TransactionResolution.valueOf(arguments.text("answer"));
            builder.setTransactionChecker(message -> {
                results.told("checked", message.getMessageId().toString());
                return answer;
            });
        }
        Producer producer;
        try {
            producer = builder.build();
        } catch (ClientException | IllegalStateException problem) {
            results.refused(problem);
            return;
        }
        obey(producer, arguments.text("topic"), arguments.given(), results);
        if (arguments.has("stays")) {
            results.told("started", "");
            orders.each(order -> obey(producer, arguments.text("topic"), order, results));
        }
        Closing.begin(producer);
    }

    private static void obey(Producer producer, String topic, JsonObject order, Results results) {
        if (order.has("recall")) {
            recall(producer, topic, order.get("recall").getAsString(), results);
        }
        if (order.has("messages")) {
            List<Message> messages = Messages.of(topic, order.getAsJsonArray("messages"));
            if (order.has("asynchronously")) {
                sendAtOnce(producer, messages, results);
            } else {
                for (Message message : messages) {
                    send(producer, message, order.has("end") ? order.get("end").getAsString() : "", results);
                }
            }
        }
    }

    private static void send(Producer producer, Message message, String end, Results results) {
        try {
            if (end.isEmpty()) {
                results.sent(producer.send(message));
                return;
            }
            Transaction transaction = producer.beginTransaction();
            SendReceipt receipt = producer.send(message, transaction);
            switch (end) {
                case "commit" -> transaction.commit();
                case "rollback" -> transaction.rollback();
                default -> { }
            }
            results.sent(receipt);
        } catch (ClientException | RuntimeException problem) {
            results.refused(problem);
        }
    }

    private static void sendAtOnce(Producer producer, List<Message> messages, Results results) {
        List<CompletableFuture<SendReceipt>> sent =
                messages.stream().map(producer::sendAsync).toList();
        for (CompletableFuture<SendReceipt> each : sent) {
            try {
                results.sent(each.get());
            } catch (InterruptedException | ExecutionException problem) {
                results.refused(problem);
            }
        }
    }

    private static void recall(Producer producer, String topic, String handle, Results results) {
        try {
            results.told("recalled", producer.recallMessage(topic, handle).getMessageId().toString());
        } catch (ClientException | RuntimeException problem) {
            results.refused(problem);
        }
    }
}
