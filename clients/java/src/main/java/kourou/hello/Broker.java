package kourou.hello;

import apache.rocketmq.v2.MessagingServiceGrpc;
import apache.rocketmq.v2.MessagingServiceGrpc.MessagingServiceBlockingStub;
import apache.rocketmq.v2.MessagingServiceGrpc.MessagingServiceStub;
import io.grpc.Channel;
import java.time.Duration;

record Broker(String name, Channel channel) {
  /** For one plain call: a deadline runs from now on. */
  MessagingServiceBlockingStub stub() {
    return stub(Client.CALL_TIMEOUT);
  }

  MessagingServiceBlockingStub stub(Duration timeout) {
    return MessagingServiceGrpc.newBlockingStub(channel).withDeadlineAfter(timeout);
  }

  /** For the stream that stays open. */
  MessagingServiceStub streaming() {
    return MessagingServiceGrpc.newStub(channel);
  }
}
