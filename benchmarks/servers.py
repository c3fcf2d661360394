"""The servers under measurement: a bare echo, and a cluster of real processes with its data in a folder of its own."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from benchmarks.process import SERVER_CORE, Process, free_port
from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou.protocol.method import UnaryMethod

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

QUEUES = 8
READY_TIMEOUT_S = 60.0
METRICS = ("--metrics-listen", "127.0.0.1:0")
CALL_TIMEOUT_S = 10.0
_CALLS_AT_A_TIME = 32
_CLIENT = (("x-mq-client-id", "benchmark"),)


def call(address: str, method: UnaryMethod[Q, A], request: Q) -> A:
    """One call on a connection of its own. Raises grpc.RpcError."""
    return calls(address, method, [request])[0]


def calls(address: str, method: UnaryMethod[Q, A], requests: Sequence[Q], at_a_time: int = _CALLS_AT_A_TIME) -> list[A]:
    answers: list[A] = []
    with grpc.insecure_channel(address) as channel:
        stub: Any = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
        for begin in range(0, len(requests), at_a_time):
            some = requests[begin : begin + at_a_time]
            running = [stub.future(request, timeout=CALL_TIMEOUT_S, metadata=_CLIENT) for request in some]
            answers += [each.result() for each in running]
    return answers


def send_one(address: str, topic: str) -> None:
    """Raises RuntimeError when the message is refused."""
    system = definition_pb2.SystemProperties(message_id=f"01{time.time_ns():032X}", message_type=definition_pb2.NORMAL)
    message = definition_pb2.Message(topic={"name": topic}, body=b"first", system_properties=system)
    check(call(address, service_rpc.SEND_MESSAGE, service_pb2.SendMessageRequest(messages=[message])).status)


def check(status: definition_pb2.Status) -> None:
    if status.code != definition_pb2.OK:
        raise RuntimeError(f"answered {definition_pb2.Code.Name(status.code)}: {status.message}")


@contextmanager
def echo_server(folder: Path, *, core: int | None = SERVER_CORE) -> Iterator[tuple[Process, str]]:
    """-> the process and its address."""
    with Process.python("benchmarks.echo_server", log=folder / "echo.log", core=core) as process:
        yield process, process.next_line()


class Broker:
    """A broker process; can be killed and started again on the same data and port."""

    def __init__(
        self, folder: Path, namesrv: str, *, core: int | None, name: str = "broker", flags: Sequence[str] = ()
    ) -> None:
        self.data = folder / name
        self.address = f"127.0.0.1:{free_port()}"
        self._name = name
        self._log = folder / f"{name}.log"
        self._namesrv = namesrv
        self._core = core
        self._flags = flags
        self.process = self.start()

    def start(self, *flags: str) -> Process:
        """`flags`: settings of this run."""
        self.process = Process.python(
            "kourou_broker",
            *("--data", str(self.data), "--name", self._name),
            *("--listeners", f"local={self.address}", "--namesrv", self._namesrv),
            *("--log-level", "warning", *METRICS, *self._flags, *flags),
            log=self._log,
            core=self._core,
        )
        return self.process

    def stored_messages(self, topic: str) -> int:
        """Messages that the topic's queues hold, as the broker counts them."""
        request = broker_pb2.DescribeQueuesRequest(topic={"name": topic})
        response = call(self.address, broker_rpc.DESCRIBE_QUEUES, request)
        check(response.status)
        return sum(queue.next_offset - queue.first_offset for queue in response.queues)

    def put_topics(self, names: Sequence[str], type_: definition_pb2.MessageType = definition_pb2.NORMAL) -> None:
        definitions = [
            record_pb2.Topic(
                name={"name": name},
                type=type_,
                queues=QUEUES,
                permission=definition_pb2.READ_WRITE,
                version=1,
            )
            for name in names
        ]
        requests = [broker_pb2.PutTopicRequest(topic=definition) for definition in definitions]
        for response in calls(self.address, broker_rpc.PUT_TOPIC, requests):
            check(response.status)

    def put_group(self, name: str) -> None:
        self.put_groups([name])

    def put_groups(
        self,
        names: Sequence[str],
        assignment: record_pb2.Assignment = record_pb2.ASSIGNMENT_SHARED,
    ) -> None:
        definitions = [record_pb2.Group(name={"name": name}, assignment=assignment, version=1) for name in names]
        requests = [broker_pb2.PutGroupRequest(group=definition) for definition in definitions]
        for response in calls(self.address, broker_rpc.PUT_GROUP, requests):
            check(response.status)


class Cluster:
    """One NameServer, one broker, and the admin service if asked for. Not ready before `wait_ready`."""

    def __init__(
        self,
        folder: Path,
        *,
        admin: bool = False,
        core: int | None = SERVER_CORE,
        broker_flags: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True)
        self._stack = ExitStack()
        self.access_point = f"127.0.0.1:{free_port()}"
        brokers_listener = f"127.0.0.1:{free_port()}"
        self._folder, self._brokers_listener, self._core = folder, brokers_listener, core
        log = folder / "services.log"
        namesrv_flags = (*METRICS, "--listeners", f"local={self.access_point}", "--broker-listener", brokers_listener)
        self.namesrv = self._stack.enter_context(Process.python("kourou_namesrv", *namesrv_flags, log=log, core=core))
        self._broker_flags = broker_flags
        self.broker = self.add_broker("broker")
        self.admin: Process | None = None
        self.admin_address = f"127.0.0.1:{free_port()}"
        if admin:
            flags = (*METRICS, "--listen", self.admin_address, "--namesrv", self.access_point)
            self.admin = self._stack.enter_context(Process.python("kourou_admin", *flags, log=log, core=core))

    def add_broker(self, name: str) -> Broker:
        broker = Broker(self._folder, self._brokers_listener, core=self._core, name=name, flags=self._broker_flags)
        self._stack.callback(lambda: broker.process.stop())
        return broker

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait_ready(self) -> None:
        """Returns when broker and access point serve."""
        wait_serving(self.broker.address, self.broker.process)
        wait_serving(self.access_point, self.namesrv)


def wait_serving(address: str, process: Process) -> None:
    """Returns when it says SERVING. Raises ProcessError if the process ends, TimeoutError after a minute."""
    until = time.monotonic() + READY_TIMEOUT_S
    while not _serving(address):
        process.check_alive()
        if time.monotonic() > until:
            raise TimeoutError(f"{process.name} does not serve at {address}")
        time.sleep(0.01)


def _serving(address: str) -> bool:
    try:
        with grpc.insecure_channel(address) as channel:
            check_health: Any = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                health_pb2.HealthCheckRequest.SerializeToString,
                health_pb2.HealthCheckResponse.FromString,
            )
            answer = check_health(health_pb2.HealthCheckRequest(), timeout=1)
    except grpc.RpcError:
        return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING
