"""`python -m benchmarks.rivals.applications SYSTEM`: does one piece of work, which it is told on stdin, in JSON.

When all is loaded it prints "ready" and waits for its order; at the end it prints the result, in JSON. In between one
that receives messages prints "connected" when they may come.
"""

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


async def _do(application: Application, order: work.Order) -> dict[str, float]:
    match order.work:
        case "create_topics":
            await application.create_topics(order.topics)
            return {}
        case "receive_on_time":
            return await work.receive_on_time(application, order, lambda: print("connected", flush=True))
        case _:
            return await _WORK[order.work](application, order)


def main() -> None:
    system = sys.argv[1]
    module = importlib.import_module(f"benchmarks.rivals.applications.{system}")
    print("ready", flush=True)
    order = work.Order(**json.loads(sys.stdin.readline()))
    application = getattr(module, _APPLICATIONS[system])(order.address, order.door)
    print(json.dumps(uvloop.run(_do(application, order))), flush=True)


if __name__ == "__main__":
    main()
