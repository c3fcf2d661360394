"""`python -m benchmarks.rivals.applications ORDER`: does one piece of work and prints its result, both in JSON.

When all is loaded it prints a line and waits for one; only then it begins. Whoever receives messages connects before.
"""

import asyncio
import importlib
import json
import sys

import uvloop

from benchmarks.rivals.applications import work
from benchmarks.rivals.applications.application import Application

_APPLICATIONS = {
    "kourou": "KourouApplication",
    "rocketmq": "RocketmqApplication",
    "kafka": "KafkaApplication",
    "nats": "NatsApplication",
    "rabbitmq": "RabbitApplication",
}
_WORK = {
    "publish": work.publish,
    "fill": work.fill,
    "one": work.one_at_a_time,
    "consume": work.consume,
    "send_on_time": work.send_on_time,
    "first": work.first_message,
}


async def _ready() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def _do(application: Application, order: work.Order) -> dict[str, float]:
    if order.work == "receive_on_time":
        return await work.receive_on_time(application, order, _ready)
    await _ready()
    if order.work == "create_topics":
        await application.create_topics(order.topics)
        return {}
    return await _WORK[order.work](application, order)


def main() -> None:
    order = work.Order(**json.loads(sys.argv[1]))
    module = importlib.import_module(f"benchmarks.rivals.applications.{order.system}")
    application = getattr(module, _APPLICATIONS[order.system])(order.address, order.door)
    print(json.dumps(uvloop.run(_do(application, order))), flush=True)


if __name__ == "__main__":
    main()
