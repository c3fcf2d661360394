package kourou.hello;

import apache.rocketmq.v2.Definition.Endpoints;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.ScopeType;

/**
 * A small client of Kourou in Java, made from the .proto files: it creates a topic and a group, and sends, receives and
 * acknowledges messages.
 *
 * <pre>
 * mvn package                           generates from ../../proto and compiles
 * java -jar target/hello.jar create     a topic and a group
 * java -jar target/hello.jar send       so many messages
 * java -jar target/hello.jar receive    so many messages
 * java -jar target/hello.jar            all three
 * </pre>
 *
 * <p>Sent and received messages come out as one line each: id, tag, keys, properties and body.
 */
@Command(
    name = "hello",
    description = "Without a command: create, send and receive.",
    mixinStandardHelpOptions = true,
    version = Client.VERSION)
public final class Hello implements Runnable {
  @Option(
      names = "--endpoints",
      split = ",",
      defaultValue = "127.0.0.1:8081",
      description = "access points, separated by commas (${DEFAULT-VALUE})",
      scope = ScopeType.INHERIT)
  List<Endpoints> endpoints;

  @Option(
      names = "--admin",
      defaultValue = "127.0.0.1:9080",
      description = "the admin service (${DEFAULT-VALUE})",
      scope = ScopeType.INHERIT)
  String admin;

  @Option(
      names = "--topic",
      defaultValue = "hello",
      description = "the topic (${DEFAULT-VALUE})",
      scope = ScopeType.INHERIT)
  String topic;

  @Option(
      names = "--group",
      defaultValue = "readers",
      description = "the consumer group (${DEFAULT-VALUE})",
      scope = ScopeType.INHERIT)
  String group;

  @Option(
      names = "--count",
      defaultValue = "10",
      description = "messages to send or receive (${DEFAULT-VALUE})",
      scope = ScopeType.INHERIT)
  int count;

  @Option(
      names = "--idle-s",
      defaultValue = "30",
      description = "receive: give up after so many seconds without a message (${DEFAULT-VALUE})",
      scope = ScopeType.INHERIT)
  int idleSeconds;

  @Command(description = "Create the topic and the group.")
  void create() {
    try (Client client = new Client()) {
      new Creator(client.channel(admin)).create(topic, group);
    }
  }

  @Command(description = "Send messages.")
  void send() {
    try (Client client = new Client()) {
      new Sender(client, endpoints, topic).send(count);
    }
  }

  @Command(description = "Receive and acknowledge messages.")
  void receive() {
    try (Client client = new Client()) {
      new Receiver(client, endpoints, topic, group).receive(count, Duration.ofSeconds(idleSeconds));
    }
  }

  @Override
  public void run() {
    create();
    send();
    receive();
  }

  public static void main(String[] args) {
    // Java's own choice depends on the locale.
    System.setOut(new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8));
    CommandLine line = new CommandLine(new Hello()).registerConverter(Endpoints.class, AccessPoints::parse);
    line.setExecutionExceptionHandler(
        (error, command, arguments) -> {
          System.err.println("error: " + describe(error));
          return 1;
        });
    System.exit(line.execute(args));
  }

  /** With its cause: gRPC's own message for a refused connection is "io exception". */
  private static String describe(Throwable error) {
    return error.getCause() == null ? error.getMessage() : error.getMessage() + ": " + error.getCause().getMessage();
  }
}
