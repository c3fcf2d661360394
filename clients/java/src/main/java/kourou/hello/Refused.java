package kourou.hello;

import apache.rocketmq.v2.Definition.Code;
import apache.rocketmq.v2.Definition.Status;

/** An answer whose own status is not OK; gRPC's status tells of the transport alone. */
final class Refused extends RuntimeException {
  private static final long serialVersionUID = 1;

  final Code code;

  private Refused(Status status) {
    super(status.getCode() + " (" + status.getCodeValue() + "): " + status.getMessage());
    code = status.getCode();
  }

  /** Lets MULTIPLE_RESULTS pass: the entries differ then, and have statuses of their own. */
  static void check(Status status) {
    if (status.getCode() != Code.OK && status.getCode() != Code.MULTIPLE_RESULTS) {
      throw new Refused(status);
    }
  }
}
