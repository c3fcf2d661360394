package kourou.compat;

import com.google.gson.JsonObject;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** What a test says to a command while it runs. The last word is "stop". */
final class Orders {
    private final BlockingQueue<JsonObject> said = new LinkedBlockingQueue<>();

    void say(JsonObject order) {
        said.add(order);
    }

    /** Carries out one after the other, until the command is to stop. */
    void each(Obeying obeying) throws Exception {
        for (JsonObject order = said.take(); !order.has("stop"); order = said.take()) {
            obeying.obey(order);
        }
    }

    interface Obeying {
        void obey(JsonObject order) throws Exception;
    }
}
