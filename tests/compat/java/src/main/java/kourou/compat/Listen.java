package kourou.compat;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.Closeable;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.LitePushConsumer;
import org.apache.rocketmq.client.apis.consumer.MessageListener;
import org.apache.rocketmq.client.apis.message.MessageView;

/**
 * Consumes "topic" as a member of "group" until it is to stop; with "lite_topics" (a list) those of them, and orders to
 * "subscribe" or "unsubscribe" change what they are. The listener fails on the first attempt of what begins with "bad", and
 * always on what begins with "dead", until it is "mended". With "hangs" it never returns from what begins with "hang". With
 * "alone" one thread calls it, else many.
 */
final class Listen implements Command {
    private static final int THREADS = 20; // the client's own default

    @Override
    public void run(Arguments arguments, Orders orders, Results results) throws Exception {
        AtomicBoolean mended = new AtomicBoolean();
        MessageListener listener = message -> {
            results.received(message);
            if (arguments.has("hangs") && body(message).startsWith("hang")) {
                hang();
            }
            return fails(message) && !mended.get() ? ConsumeResult.FAILURE : ConsumeResult.SUCCESS;
        };
        if (arguments.has("lite_topics")) {
            LitePushConsumer consumer = lite(arguments, listener);
            for (JsonElement name : arguments.list("lite_topics")) {
                consumer.subscribeLite(name.getAsString());
            }
            results.told("started", "");
            orders.each(order -> obey(consumer, order, results));
            Closing.begin(consumer);
            return;
        }
        Closeable consumer;
        try {
            consumer = push(arguments, listener);
        } catch (ClientException | RuntimeException problem) {
            results.refused(problem);
            return;
        }
        results.told("started", "");
        orders.each(order -> mended.set(order.has("mended")));
        Closing.begin(consumer);
    }

    private static Closeable push(Arguments arguments, MessageListener listener) throws ClientException {
        return ClientServiceProvider.loadService()
                .newPushConsumerBuilder()
                .setClientConfiguration(arguments.configuration())
                .setConsumerGroup(arguments.text("group"))
                .setSubscriptionExpressions(arguments.subscription())
                .setMessageListener(listener)
                .setConsumptionThreadCount(arguments.has("alone") ? 1 : THREADS)
                .build();
    }

    private static LitePushConsumer lite(Arguments arguments, MessageListener listener) throws ClientException {
        return ClientServiceProvider.loadService()
                .newLitePushConsumerBuilder()
                .bindTopic(arguments.text("topic"))
                .setClientConfiguration(arguments.configuration())
                .setConsumerGroup(arguments.text("group"))
                .setMessageListener(listener)
                .build();
    }

    private static void obey(LitePushConsumer consumer, JsonObject order, Results results) {
        try {
            if (order.has("subscribe")) {
                consumer.subscribeLite(order.get("subscribe").getAsString());
                results.told("subscribed", order.get("subscribe").getAsString());
            } else {
                consumer.unsubscribeLite(order.get("unsubscribe").getAsString());
                results.told("unsubscribed", order.get("unsubscribe").getAsString());
            }
        } catch (ClientException | RuntimeException problem) {
            results.refused(problem);
        }
    }

    private static boolean fails(MessageView message) {
        String body = body(message);
        return body.startsWith("dead") || (body.startsWith("bad") && message.getDeliveryAttempt() == 1);
    }

    private static String body(MessageView message) {
        return StandardCharsets.UTF_8.decode(message.getBody()).toString();
    }

    private static void hang() {
        try {
            new CountDownLatch(1).await();
        } catch (InterruptedException problem) {
            Thread.currentThread().interrupt();
        }
    }
}
