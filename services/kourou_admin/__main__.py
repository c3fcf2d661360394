"""`python -m kourou_admin`, and the body of `kourou admin serve`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import structlog

from kourou_admin.service import Admin
from kourou_admin.settings import AdminSettings
from kourou_service.logs import configure_logging
from kourou_service.metrics.server import serving_metrics
from kourou_service.process import run_process

_logger = structlog.stdlib.get_logger("kourou_admin")


def main(args: Sequence[str]) -> int:
    """The exit code of the process."""

    async def serve(stop: asyncio.Event) -> None:
        settings = AdminSettings.load(args)
        configure_logging(settings.log_level, settings.log_format)
        admin = Admin(settings)
        try:
            await admin.start()
            async with serving_metrics(
                [admin.metrics()], settings.metrics_listen, settings.metrics_max_series
            ) as metrics:
                _logger.info(
                    "admin service listens",
                    addresses=admin.addresses,
                    namesrv=settings.namesrv,
                    metrics=str(metrics or ""),
                )
                await stop.wait()
        finally:
            await admin.stop()

    return run_process("kourou admin", serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
