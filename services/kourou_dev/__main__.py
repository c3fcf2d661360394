"""`python -m kourou_dev`, and the body of `kourou dev`."""

import asyncio
import sys
from collections.abc import Sequence

from kourou_dev.greeting import greeting
from kourou_dev.service import LocalCluster
from kourou_dev.settings import DevSettings
from kourou_service.logs import configure_logging
from kourou_service.process import run_process


def main(args: Sequence[str]) -> int:
    """The exit code of the process."""

    async def serve(stop: asyncio.Event) -> None:
        settings = DevSettings.load(args)
        configure_logging(settings.log_level, settings.log_format)
        cluster = LocalCluster(settings)
        try:
            await cluster.start()
            print(greeting(cluster, settings.data), flush=True)
            await stop.wait()
            print("stopping", flush=True)
        finally:
            await cluster.stop()

    return run_process("kourou dev", serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
