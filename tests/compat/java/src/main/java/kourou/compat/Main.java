package kourou.compat;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Runs commands with the official client, side by side, until its standard input ends. Each line of that is a JSON object:
 * {"run": number, "command": name, "endpoints": ..., "arguments": {...}} begins one, {"run": number, "order": {...}} tells it
 * something while it runs. On standard output each line is a result of one, {"run": number, "result": {...}}, or says that it
 * ended: {"run": number, "done": true} or {"run": number, "error": text}.
 */
public final class Main {
    private static final Map<String, Command> COMMANDS =
            Map.of("produce", new Produce(), "listen", new Listen(), "simple", new Simple());

    private final Map<Integer, Orders> running = new ConcurrentHashMap<>();
    private final PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    public static void main(String[] args) throws Exception {
        Main main = new Main();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            main.take(JsonParser.parseString(line).getAsJsonObject());
        }
        System.exit(0); // threads of the client may live on after its clients are closed
    }

    private void take(JsonObject said) {
        int run = said.get("run").getAsInt();
        if (said.has("command")) {
            Orders orders = new Orders();
            running.put(run, orders);
            new Thread(() -> run(run, said, orders)).start();
        } else if (running.containsKey(run)) {
            running.get(run).say(said.getAsJsonObject("order"));
        }
    }

    private void run(int run, JsonObject said, Orders orders) {
        Results results = new Results(out, run);
        try {
            Arguments arguments =
                    new Arguments(said.get("endpoints").getAsString(), said.getAsJsonObject("arguments"));
            COMMANDS.get(said.get("command").getAsString()).run(arguments, orders, results);
            results.done();
        } catch (Exception problem) {
            results.failed(problem);
        } finally {
            running.remove(run);
        }
    }
}
