package kourou.compat;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/**
 * Runs one command with the official client: compat.jar COMMAND ENDPOINTS, with its arguments as a JSON object on
 * standard input. Each result is a line of JSON on standard output.
 */
public final class Main {
    private static final Map<String, Command> COMMANDS = Map.of(
            "send", new Send(),
            "transact", new Transact(),
            "recall", new Recall(),
            "receive", new Receive(),
            "listen", new Listen());

    private Main() {}

    public static void main(String[] args) throws Exception {
        Command command = args.length == 2 ? COMMANDS.get(args[0]) : null;
        if (command == null) {
            System.err.println("usage: compat.jar " + String.join("|", COMMANDS.keySet()) + " ENDPOINTS");
            System.exit(2);
        }
        JsonObject given = JsonParser.parseReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))
                .getAsJsonObject();
        command.run(new Arguments(args[1], given), new Results(System.out));
        // Threads of the client may live on after its clients are closed.
        System.exit(0);
    }
}
