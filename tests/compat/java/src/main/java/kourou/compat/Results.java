package kourou.compat;

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.util.HexFormat;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.SendReceipt;

/** Lines of JSON, from any thread. */
final class Results {
    private final PrintStream out;
    private final Gson gson = new Gson();

    Results(PrintStream out) {
        this.out = new PrintStream(out, true, java.nio.charset.StandardCharsets.UTF_8);
    }

    synchronized void write(JsonObject result) {
        out.println(gson.toJson(result));
    }

    void sent(SendReceipt receipt) {
        JsonObject result = new JsonObject();
        result.addProperty("id", receipt.getMessageId().toString());
        if (receipt.getRecallHandle() != null && !receipt.getRecallHandle().isEmpty()) {
            result.addProperty("recall_handle", receipt.getRecallHandle());
        }
        write(result);
    }

    /** One fact. */
    void told(String what, String value) {
        JsonObject result = new JsonObject();
        result.addProperty(what, value);
        write(result);
    }

    void received(MessageView message) {
        JsonObject result = new JsonObject();
        result.addProperty("id", message.getMessageId().toString());
        result.addProperty("topic", message.getTopic());
        result.addProperty("body", hex(message.getBody()));
        message.getTag().ifPresent(tag -> result.addProperty("tag", tag));
        result.add("keys", gson.toJsonTree(message.getKeys().stream().sorted().toList()));
        result.add("properties", gson.toJsonTree(message.getProperties()));
        message.getMessageGroup().ifPresent(group -> result.addProperty("group", group));
        message.getDeliveryTimestamp().ifPresent(time -> result.addProperty("deliver_at_ms", time));
        message.getPriority().ifPresent(priority -> result.addProperty("priority", priority));
        message.getLiteTopic().ifPresent(name -> result.addProperty("lite_topic", name));
        result.addProperty("attempt", message.getDeliveryAttempt());
        result.addProperty("at_ms", System.currentTimeMillis());
        write(result);
    }

    private static String hex(ByteBuffer body) {
        byte[] bytes = new byte[body.remaining()];
        body.duplicate().get(bytes);
        return HexFormat.of().formatHex(bytes);
    }
}
