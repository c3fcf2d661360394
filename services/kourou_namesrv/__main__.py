"""`python -m kourou_namesrv`, and the body of `kourou namesrv`."""

import asyncio
import sys
from collections.abc import Sequence

import structlog

from kourou_namesrv.service import NameServer
from kourou_namesrv.settings import NamesrvSettings
from kourou_service.logs import configure_logging
from kourou_service.metrics.server import serving_metrics
from kourou_service.process import run_process

_logger = structlog.stdlib.get_logger("kourou_namesrv")


def main(args: Sequence[str]) -> int:
    """The exit code of the process."""

    async def serve(stop: asyncio.Event) -> None:
        settings = NamesrvSettings.load(args)
        configure_logging(settings.log_level, settings.log_format)
        namesrv = NameServer(settings)
        try:
            await namesrv.start()
            async with serving_metrics(
                [namesrv.metrics()], settings.metrics_listen, settings.metrics_max_series
            ) as metrics:
                _logger.info(
                    "NameServer listens",
                    clients=[listener.bound_form for listener in namesrv.listeners],
                    brokers=namesrv.broker_address,
                    metrics=str(metrics or ""),
                )
                await stop.wait()
        finally:
            await namesrv.stop()

    return run_process("kourou namesrv", serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
