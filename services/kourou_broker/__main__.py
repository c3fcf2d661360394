"""`python -m kourou_broker`, and the body of `kourou broker`."""

import asyncio
import sys
from collections.abc import Sequence

import structlog

from kourou_broker.log.errors import LogError
from kourou_broker.service import Broker
from kourou_broker.settings import BrokerSettings
from kourou_service.logs import configure_logging
from kourou_service.metrics.server import serving_metrics
from kourou_service.process import UserError, run_process

_logger = structlog.stdlib.get_logger("kourou_broker")


def main(args: Sequence[str]) -> int:
    """The exit code of the process."""

    async def serve(stop: asyncio.Event) -> None:
        settings = BrokerSettings.load(args)
        configure_logging(settings.log_level, settings.log_format)
        broker = Broker(settings, on_stop=stop.set)
        try:
            await broker.start()
            async with serving_metrics(
                [broker.metrics()], settings.metrics_listen, settings.metrics_max_series
            ) as metrics:
                _logger.info(
                    "broker serves",
                    name=settings.name,
                    listeners=[listener.bound_form for listener in broker.listeners],
                    metrics=str(metrics or ""),
                    **broker.start_facts,
                )
                await stop.wait()
        except LogError as problem:
            raise UserError(str(problem)) from problem
        finally:
            await broker.stop()

    return run_process("kourou broker", serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
