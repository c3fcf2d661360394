package kourou.compat;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.util.Map;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientConfigurationBuilder;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.FilterExpressionType;

/** A command's arguments, and what all commands make of them. */
record Arguments(String endpoints, JsonObject given) {

    /** In the client's default form, which speaks TLS, unless "tls" is given. */
    ClientConfiguration configuration() {
        ClientConfigurationBuilder builder = ClientConfiguration.newBuilder().setEndpoints(endpoints);
        if (has("tls")) {
            builder.enableSsl(given.get("tls").getAsBoolean());
        }
        return builder.build();
    }

    /** By "expression" and "kind" (TAG or SQL92); all messages when they are absent. */
    Map<String, FilterExpression> subscription() {
        FilterExpressionType kind = FilterExpressionType.valueOf(text("kind", "TAG"));
        return Map.of(text("topic"), new FilterExpression(text("expression", "*"), kind));
    }

    String text(String name) {
        return required(name).getAsString();
    }

    String text(String name, String absent) {
        return has(name) ? text(name) : absent;
    }

    boolean has(String name) {
        return given.has(name);
    }

    JsonArray list(String name) {
        return required(name).getAsJsonArray();
    }

    private JsonElement required(String name) {
        if (!has(name)) {
            throw new IllegalArgumentException("the argument " + name + " is missing");
        }
        return given.get(name);
    }
}
