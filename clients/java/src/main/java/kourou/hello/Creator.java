package kourou.hello;

import apache.rocketmq.v2.Definition.Code;
import apache.rocketmq.v2.Definition.Status;
import io.grpc.Channel;
import java.util.List;
import kourou.admin.v1.AdminGrpc;
import kourou.admin.v1.AdminGrpc.AdminBlockingStub;
import kourou.admin.v1.AdminOuterClass.CreateGroupRequest;
import kourou.admin.v1.AdminOuterClass.CreateGroupResponse;
import kourou.admin.v1.AdminOuterClass.CreateTopicRequest;
import kourou.admin.v1.AdminOuterClass.CreateTopicResponse;
import kourou.admin.v1.AdminOuterClass.Outcome;

/** Makes a topic and a group on all brokers. */
final class Creator {
  private static final int QUEUES = 4; // on each broker

  private final Channel admin;

  Creator(Channel admin) {
    this.admin = admin;
  }

  /** Returns when access points know the topic. */
  void create(String topic, String group) {
    CreateTopicResponse topicMade =
        stub().createTopic(CreateTopicRequest.newBuilder().setName(Client.resource(topic)).setQueues(QUEUES).build());
    report("topic " + topic, topicMade.getStatus(), topicMade.getOutcomesList());
    CreateGroupResponse groupMade =
        stub().createGroup(CreateGroupRequest.newBuilder().setName(Client.resource(group)).build());
    report("group " + group, groupMade.getStatus(), groupMade.getOutcomesList());
  }

  private AdminBlockingStub stub() {
    return AdminGrpc.newBlockingStub(admin).withDeadlineAfter(Client.CALL_TIMEOUT);
  }

  /** Passes over what was there before. Each broker has an outcome of its own: one that is down fails alone. */
  private static void report(String what, Status status, List<Outcome> outcomes) {
    if (status.getCode() == Code.PRECONDITION_FAILED) {
      System.out.println(status.getMessage());
      return;
    }
    Refused.check(status);
    for (Outcome outcome : outcomes) {
      Refused.check(outcome.getStatus());
    }
    System.out.println(what + " created on " + outcomes.size() + " brokers");
  }
}
