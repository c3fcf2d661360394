package kourou.hello;

import apache.rocketmq.v2.Definition.Address;
import apache.rocketmq.v2.Definition.AddressScheme;
import apache.rocketmq.v2.Definition.Endpoints;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import picocli.CommandLine.TypeConversionException;

/** Addresses as people write them and as the protocol has them. */
final class AccessPoints {
  private static final Pattern HOST_PORT = Pattern.compile("\\[?([^\\]]+?)\\]?:(\\d{1,5})");
  private static final Pattern IPV4 = Pattern.compile("[0-9.]+");

  private AccessPoints() {}

  static Endpoints parse(String text) {
    Matcher matcher = HOST_PORT.matcher(text);
    if (!matcher.matches()) {
      throw new TypeConversionException("'" + text + "' is not host:port");
    }
    String host = matcher.group(1);
    AddressScheme scheme = host.contains(":") ? AddressScheme.IPv6
        : IPV4.matcher(host).matches() ? AddressScheme.IPv4 : AddressScheme.DOMAIN_NAME;
    Address address = Address.newBuilder().setHost(host).setPort(Integer.parseInt(matcher.group(2))).build();
    return Endpoints.newBuilder().setScheme(scheme).addAddresses(address).build();
  }

  /** The first: where there are several addresses, any of them will do. */
  static String hostPort(Endpoints endpoints) {
    Address address = endpoints.getAddresses(0);
    String host = address.getHost().contains(":") ? "[" + address.getHost() + "]" : address.getHost();
    return host + ":" + address.getPort();
  }
}
