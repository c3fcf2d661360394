"""A group's backoff: told to clients in settings, and applied to what is given back without a time."""

import asyncio

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from tests.unit.broker.alone import Broker, attempt, handle, settings_command, simulated, until

Language = definition_pb2.Language


def curve(initial_s: float, multiplier: float, max_s: float, max_attempts: int = 16) -> definition_pb2.RetryPolicy:
    backoff = definition_pb2.ExponentialBackoff(multiplier=multiplier)
    backoff.initial.FromMilliseconds(int(initial_s * 1000))
    backoff.max.FromMilliseconds(int(max_s * 1000))
    return definition_pb2.RetryPolicy(max_attempts=max_attempts, exponential_backoff=backoff)


def steps(*steps_s: float, max_attempts: int = 16) -> definition_pb2.RetryPolicy:
    policy = definition_pb2.RetryPolicy(max_attempts=max_attempts)
    for step_s in steps_s:
        policy.customized_backoff.next.add().FromMilliseconds(int(step_s * 1000))
    return policy


async def told(broker: Broker, language: Language) -> definition_pb2.RetryPolicy:
    """What a push consumer in that language is answered."""
    client = f"client-{language}"
    command = settings_command(definition_pb2.PUSH_CONSUMER, "team", ["orders"])
    command.settings.user_agent.language = language
    stream = broker.doors.open(service_rpc.TELEMETRY, {"x-mq-client-id": client})
    stream.requests.put_nowait(command.SerializeToString())
    await until(lambda: bool(stream.answers))
    answer = service_pb2.TelemetryCommand.FromString(stream.answers[0])
    await broker.leave(client)
    stream.cancel()
    return answer.settings.backoff_policy


@simulated
async def test_every_language_is_told_the_changed_policy() -> None:
    broker = await Broker.started(group={"max_attempts": 3, "backoff_s": [1, 2]})
    for language in (Language.JAVA, Language.GOLANG, Language.PYTHON):
        assert await told(broker, language) == steps(1, 2, max_attempts=3)
    assert await told(broker, Language.NODE_JS) == curve(1, 2, 2, max_attempts=3)

    await broker.put_group("team", version=2, retry=curve(0.5, 3, 20, max_attempts=6))
    for language in (Language.JAVA, Language.GOLANG, Language.NODE_JS):
        assert await told(broker, language) == curve(0.5, 3, 20, max_attempts=6)
    assert await told(broker, Language.PYTHON) == steps(1, 2, 5, 14, 20, max_attempts=6)

    await broker.restart()
    assert await told(broker, Language.JAVA) == curve(0.5, 3, 20, max_attempts=6)


@pytest.mark.parametrize(
    ("policy", "waits_s"),
    [
        (steps(1, 5), [1, 5, 5, 5]),
        (steps(4), [4, 4, 4, 4]),
        (curve(1, 2, 5), [1, 2, 4, 5]),
        (curve(2, 1, 60), [2, 2, 2, 2]),
    ],
)
def test_what_is_given_back_without_a_time_waits_by_the_policy(
    policy: definition_pb2.RetryPolicy, waits_s: list[float]
) -> None:
    @simulated
    async def run() -> None:
        broker = await Broker.started()
        await broker.put_group("team", version=2, retry=policy)
        await broker.send_ids("m")
        found: list[float] = []
        for number, wait_s in enumerate(waits_s, 1):
            [message] = await broker.receive(wait_s=30)
            assert attempt(message) == number
            given_back_ms = broker.now_ms()
            await broker.change(handle(message), None)
            assert await broker.receive(wait_s=wait_s - 0.2) == []
            [message] = await broker.receive(wait_s=30, invisible_s=0.001)
            found.append(round((broker.now_ms() - given_back_ms) / 1000, 1))
            await broker.change(handle(message), 0, suspend=True)
        assert found == waits_s

    run()


@simulated
async def test_an_invisible_time_that_ran_out_was_the_wait() -> None:
    """Nobody gave the message back, and it was away for as long as its consumer asked for: it is due at once."""
    broker = await Broker.started(group={"backoff_s": [3600]})
    await broker.send_ids("m")
    await broker.receive(invisible_s=2)
    await asyncio.sleep(2.1)
    [message] = await broker.receive(wait_s=0.5)
    assert attempt(message) == 2
