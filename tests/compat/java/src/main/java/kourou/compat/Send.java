package kourou.compat;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.util.HexFormat;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageBuilder;
import org.apache.rocketmq.client.apis.producer.Producer;

/** Sends "messages" to "topic", one after the other; tells the id of each. */
final class Send implements Command {
    private final ClientServiceProvider provider = ClientServiceProvider.loadService();

    @Override
    public void run(Arguments arguments, Results results) throws Exception {
        String topic = arguments.text("topic");
        try (Producer producer = provider.newProducerBuilder()
                .setClientConfiguration(arguments.configuration())
                .setTopics(topic)
                .build()) {
            for (JsonElement message : arguments.list("messages")) {
                results.sent(producer.send(message(topic, message.getAsJsonObject())).getMessageId().toString());
            }
        }
    }

    /** "body" is hexadecimal; "tag", "keys" (a list) and "properties" (an object) may be absent. */
    private Message message(String topic, JsonObject given) {
        MessageBuilder builder = provider.newMessageBuilder()
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
        if (given.has("properties")) {
            given.getAsJsonObject("properties").asMap().forEach((name, value) ->
                    builder.addProperty(name, value.getAsString()));
        }
        return builder.build();
    }
}
