package kourou.compat;

import com.google.gson.JsonElement;
import java.io.Closeable;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.LitePushConsumer;
import org.apache.rocketmq.client.apis.consumer.MessageListener;
import org.apache.rocketmq.client.apis.message.MessageView;

/**
 * Consumes "topic" as a member of "group" until it has got "count" deliveries, or "timeout_s" is over; of "lite_topics"
 * if they are given. Fails on the first attempt of what begins with "bad", and always on what
 * begins with "dead".
 */
final class Listen implements Command {
    // A close waits for polls that are under way, which may take 20 s; what was consumed is acknowledged long before.
    private static final long CLOSE_MS = 2000;

    @Override
    public void run(Arguments arguments, Results results) throws Exception {
        CountDownLatch wanted = new CountDownLatch(arguments.number("count"));
        MessageListener listener = message -> {
            results.received(message);
            wanted.countDown();
            return fails(message) ? ConsumeResult.FAILURE : ConsumeResult.SUCCESS;
        };
        Closeable consumer = arguments.given().has("lite_topics")
                ? lite(arguments, listener)
                : ClientServiceProvider.loadService()
                        .newPushConsumerBuilder()
                        .setClientConfiguration(arguments.configuration())
                        .setConsumerGroup(arguments.text("group"))
                        .setSubscriptionExpressions(arguments.subscription())
                        .setMessageListener(listener)
                        .build();
        wanted.await(arguments.seconds("timeout_s", 40).toSeconds(), TimeUnit.SECONDS);
        Thread closing = new Thread(() -> close(consumer));
        closing.start();
        closing.join(CLOSE_MS);
    }

    private static LitePushConsumer lite(Arguments arguments, MessageListener listener) throws ClientException {
        LitePushConsumer consumer = ClientServiceProvider.loadService()
                .newLitePushConsumerBuilder()
                .bindTopic(arguments.text("topic"))
                .setClientConfiguration(arguments.configuration())
                .setConsumerGroup(arguments.text("group"))
                .setMessageListener(listener)
                .build();
        for (JsonElement name : arguments.list("lite_topics")) {
            consumer.subscribeLite(name.getAsString());
        }
        return consumer;
    }

    private static boolean fails(MessageView message) {
        String body = StandardCharsets.UTF_8.decode(message.getBody()).toString();
        return body.startsWith("dead") || (body.startsWith("bad") && message.getDeliveryAttempt() == 1);
    }

    private static void close(Closeable consumer) {
        try {
            consumer.close();
        } catch (IOException problem) {
            throw new UncheckedIOException(problem);
        }
    }
}
