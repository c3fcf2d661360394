package kourou.hello;

import apache.rocketmq.v2.Definition.Language;
import apache.rocketmq.v2.Definition.Resource;
import apache.rocketmq.v2.Definition.Settings;
import apache.rocketmq.v2.Definition.UA;
import apache.rocketmq.v2.Service.HeartbeatRequest;
import apache.rocketmq.v2.Service.NotifyClientTerminationRequest;
import apache.rocketmq.v2.Service.TelemetryCommand;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** A client's presence at brokers: to each of them a telemetry stream with its settings, and heartbeats. */
final class Session implements AutoCloseable {
  /** As often as the official clients; silence tells servers that a client is gone. */
  private static final long HEARTBEAT_INTERVAL_S = 10;

  private final List<Broker> brokers;
  private final Settings settings;
  private final Optional<Resource> group;
  private final ScheduledExecutorService heartbeats = Executors.newSingleThreadScheduledExecutor();

  /** Returns when every broker has answered the settings. */
  Session(List<Broker> brokers, Settings.Builder own) {
    this.brokers = brokers;
    UA.Builder userAgent =
        UA.newBuilder()
            .setLanguage(Language.JAVA)
            .setVersion(Client.VERSION)
            .setPlatform(System.getProperty("os.name"))
            .setHostname(Client.HOST);
    settings = own.setRequestTimeout(Times.duration(Client.CALL_TIMEOUT)).setUserAgent(userAgent).build();
    group = settings.hasSubscription() ? Optional.of(settings.getSubscription().getGroup()) : Optional.empty();
    brokers.forEach(this::introduce);
    heartbeats.scheduleAtFixedRate(() -> tell(this::beat), 0, HEARTBEAT_INTERVAL_S, TimeUnit.SECONDS);
  }

  /**
   * Opens the stream, which then stays open: its end tells the broker that the client is gone. A program that lives
   * long opens it again when it breaks.
   */
  private void introduce(Broker broker) {
    CompletableFuture<TelemetryCommand> answer = new CompletableFuture<>();
    StreamObserver<TelemetryCommand> stream = broker.streaming().telemetry(new FirstOf<>(answer));
    stream.onNext(TelemetryCommand.newBuilder().setSettings(settings).build());
    try {
      // Its settings hold what the broker prescribes: batch sizes, waiting times, how long a failed message stays away.
      Refused.check(answer.orTimeout(Client.CALL_TIMEOUT.toMillis(), TimeUnit.MILLISECONDS).join().getStatus());
    } catch (Refused | CompletionException error) {
      throw new IllegalStateException(broker.name() + " does not take our settings", error);
    }
  }

  private void beat(Broker broker) {
    HeartbeatRequest.Builder heartbeat = HeartbeatRequest.newBuilder().setClientType(settings.getClientType());
    group.ifPresent(heartbeat::setGroup);
    broker.stub().heartbeat(heartbeat.build());
  }

  private void sayGoodbye(Broker broker) {
    NotifyClientTerminationRequest.Builder goodbye = NotifyClientTerminationRequest.newBuilder();
    group.ifPresent(goodbye::setGroup);
    broker.stub().notifyClientTermination(goodbye.build());
  }

  /** Whoever cannot be told notices by himself, or is told by the next heartbeat. */
  private void tell(Consumer<Broker> what) {
    for (Broker broker : brokers) {
      try {
        what.accept(broker);
      } catch (StatusRuntimeException ignored) {
      }
    }
  }

  /** Says goodbye, so that what the client holds goes to others at once. */
  @Override
  public void close() {
    heartbeats.shutdownNow();
    tell(this::sayGoodbye);
  }

  /** What comes later are commands, but only for consumers with a listener and for senders of transactions. */
  private record FirstOf<T>(CompletableFuture<T> first) implements StreamObserver<T> {
    @Override
    public void onNext(T value) {
      first.complete(value);
    }

    @Override
    public void onError(Throwable error) {
      first.completeExceptionally(error);
    }

    @Override
    public void onCompleted() {
      first.completeExceptionally(new IllegalStateException("the broker closed the stream"));
    }
  }
}
