package kourou.compat;

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.ByteBuffer;
import java.util.HexFormat;
import java.util.Objects;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.SendReceipt;

/** What one command tells, from any thread: each a line of JSON. */
final class Results {
    private static final Gson GSON = new Gson();

    private final PrintStream out;
    private final int run;

    Results(PrintStream out, int run) {
        this.out = out;
        this.run = run;
    }

    void sent(SendReceipt receipt) {
        JsonObject result = new JsonObject();
        result.addProperty("id", receipt.getMessageId().toString());
        if (receipt.getRecallHandle() != null && !receipt.getRecallHandle().isEmpty()) {
            result.addProperty("recall_handle", receipt.getRecallHandle());
        }
        write("result", result);
    }

    /** One fact. */
    void told(String what, String value) {
        JsonObject result = new JsonObject();
        result.addProperty(what, value);
        write("result", result);
    }

    /** Something could not be; this is how the user of the client sees it: the problem and its causes. */
    void refused(Throwable problem) {
        told("refused", Stream.iterate(problem, Objects::nonNull, Throwable::getCause)
                .map(Throwable::toString)
                .collect(Collectors.joining("; ")));
    }

    void received(MessageView message) {
        JsonObject result = new JsonObject();
        result.addProperty("id", message.getMessageId().toString());
        result.addProperty("topic", message.getTopic());
        result.addProperty("body", hex(message.getBody()));
        message.getTag().ifPresent(tag -> result.addProperty("tag", tag));
        result.add("keys", GSON.toJsonTree(message.getKeys().stream().sorted().toList()));
        result.add("properties", GSON.toJsonTree(message.getProperties()));
        message.getMessageGroup().ifPresent(group -> result.addProperty("group", group));
        message.getDeliveryTimestamp().ifPresent(time -> result.addProperty("deliver_at_ms", time));
        message.getPriority().ifPresent(priority -> result.addProperty("priority", priority));
        message.getLiteTopic().ifPresent(name -> result.addProperty("lite_topic", name));
        result.addProperty("attempt", message.getDeliveryAttempt());
        result.addProperty("at_ms", System.currentTimeMillis());
        write("result", result);
    }

    void done() {
        write("done", new JsonPrimitive(true));
    }

    void failed(Exception problem) {
        StringWriter trace = new StringWriter();
        problem.printStackTrace(new PrintWriter(trace));
        write("error", new JsonPrimitive(trace.toString()));
    }

    private void write(String kind, JsonElement value) {
        JsonObject line = new JsonObject();
        line.addProperty("run", run);
        line.add(kind, value);
        synchronized (out) {
            out.println(GSON.toJson(line));
        }
    }

    private static String hex(ByteBuffer body) {
        byte[] bytes = new byte[body.remaining()];
        body.duplicate().get(bytes);
        return HexFormat.of().formatHex(bytes);
    }
}
