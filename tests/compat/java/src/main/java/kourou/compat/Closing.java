package kourou.compat;

import java.io.Closeable;
import java.io.IOException;
import java.io.UncheckedIOException;

/**
 * Clients are closed with nobody waiting for that: a close waits itself for polls, up to 20 s, and if a telemetry stream was
 * broken in the second before, for ever.
 */
final class Closing {
    private Closing() {}

    static void begin(Closeable client) {
        Thread closing = new Thread(() -> {
            try {
                client.close();
            } catch (IOException problem) {
                throw new UncheckedIOException(problem);
            }
        });
        closing.start();
    }
}
