package kourou.hello;

import apache.rocketmq.v2.Definition.Message;
import apache.rocketmq.v2.Definition.SystemProperties;
import java.util.stream.Collectors;

final class Lines {
  private Lines() {}

  /** One line of a message. */
  static String show(Message message) {
    SystemProperties system = message.getSystemProperties();
    String properties =
        message.getUserPropertiesMap().entrySet().stream()
            .map(entry -> entry.getKey() + "=" + entry.getValue())
            .sorted()
            .collect(Collectors.joining(","));
    String keys = String.join(",", system.getKeysList());
    return String.join(
        "\t", system.getMessageId(), system.getTag(), keys, properties, message.getBody().toStringUtf8());
  }
}
