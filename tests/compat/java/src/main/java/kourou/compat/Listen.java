package kourou.compat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.PushConsumer;

/** Consumes "topic" as a member of "group" until it has got "count" messages, or "timeout_s" is over. */
final class Listen implements Command {
    // A close waits for polls that are under way, which may take 20 s; what was consumed is acknowledged long before.
    private static final long CLOSE_MS = 2000;

    @Override
    public void run(Arguments arguments, Results results) throws Exception {
        CountDownLatch wanted = new CountDownLatch(arguments.number("count"));
        PushConsumer consumer = ClientServiceProvider.loadService()
                .newPushConsumerBuilder()
                .setClientConfiguration(arguments.configuration())
                .setConsumerGroup(arguments.text("group"))
                .setSubscriptionExpressions(arguments.subscription())
                .setMessageListener(message -> {
                    results.received(message);
                    wanted.countDown();
                    return ConsumeResult.SUCCESS;
                })
                .build();
        wanted.await(arguments.seconds("timeout_s", 40).toSeconds(), TimeUnit.SECONDS);
        Thread closing = new Thread(() -> close(consumer));
        closing.start();
        closing.join(CLOSE_MS);
    }

    private static void close(PushConsumer consumer) {
        try {
            consumer.close();
        } catch (IOException problem) {
            throw new UncheckedIOException(problem);
        }
    }
}
