package kourou.compat;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.Transaction;
import org.apache.rocketmq.client.apis.producer.TransactionResolution;

/**
 * Sends the one message of "messages" to "topic" in a transaction and ends it by "resolution": commit, rollback, none, or
 * die (the process ends at once). Then answers "checks" checks of transactions with "answer" (COMMIT, ROLLBACK, UNKNOWN).
 * Without messages it only answers checks.
 */
final class Transact implements Command {
    @Override
    public void run(Arguments arguments, Results results) throws Exception {
        String topic = arguments.text("topic");
        int checks = arguments.given().has("checks") ? arguments.number("checks") : 0;
        TransactionResolution answer = TransactionResolution.valueOf(arguments.text("answer", "UNKNOWN"));
        CountDownLatch wanted = new CountDownLatch(checks);
        try (Producer producer = ClientServiceProvider.loadService()
                .newProducerBuilder()
                .setClientConfiguration(arguments.configuration())
                .setTopics(topic)
                .setTransactionChecker(message -> {
                    results.told("checked", message.getMessageId().toString());
                    wanted.countDown();
                    return answer;
                })
                .build()) {
            for (Message message : Messages.of(arguments)) {
                send(producer, message, arguments.text("resolution"), results);
            }
            wanted.await(arguments.seconds("timeout_s", 40).toSeconds(), TimeUnit.SECONDS);
            if (checks > 0) {
                Thread.sleep(500); // the last answer leaves in the background
            }
        }
    }

    private static void send(Producer producer, Message message, String resolution, Results results) throws Exception {
        Transaction transaction = producer.beginTransaction();
        results.sent(producer.send(message, transaction));
        switch (resolution) {
            case "commit" -> transaction.commit();
            case "rollback" -> transaction.rollback();
            case "die" -> Runtime.getRuntime().halt(0);
            default -> { }
        }
    }
}
