package kourou.compat;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.util.HexFormat;
import java.util.List;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageBuilder;

/** What is to be sent. */
final class Messages {
    private Messages() {}

    static List<Message> of(String topic, JsonArray given) {
        return given.asList().stream()
                .map(message -> of(topic, message.getAsJsonObject()))
                .toList();
    }

    /**
     * "body" is hexadecimal; "tag", "keys" (a list), "properties" (an object), and what makes the message's type, "group",
     * "deliver_at_ms", "priority" or "lite_topic", may be absent.
     */
    private static Message of(String topic, JsonObject given) {
        MessageBuilder builder = ClientServiceProvider.loadService()
                .newMessageBuilder()
                .setTopic(topic)
                .setBody(HexFormat.of().parseHex(given.get("body").getAsString()));
        if (given.has("tag")) {
            builder.setTag(given.get("tag").getAsString());
        }
        if (given.has("keys")) {
            builder.setKeys(given.getAsJsonArray("keys").asList().stream()
                    .map(JsonElement::getAsString)
                    .toArray(String[]::new));
        }
        if (given.has("group")) {
            builder.setMessageGroup(given.get("group").getAsString());
        }
        if (given.has("deliver_at_ms")) {
            builder.setDeliveryTimestamp(given.get("deliver_at_ms").getAsLong());
        }
        if (given.has("priority")) {
            builder.setPriority(given.get("priority").getAsInt());
        }
        if (given.has("lite_topic")) {
            builder.setLiteTopic(given.get("lite_topic").getAsString());
        }
        if (given.has("properties")) {
            given.getAsJsonObject("properties").asMap().forEach((name, value) ->
                    builder.addProperty(name, value.getAsString()));
        }
        return builder.build();
    }
}
