"""A bare echo on one engine: `python -m benchmarks.echo.server VARIANT`; prints the address it serves.

Variants: `queue`, `aio`, and `floor`, which is gRPC's completion queue polled by the serving thread, without loop,
limits, metadata, cancellation or streams. With `-asyncio` appended the loop is asyncio's instead of uvloop.
"""

from __future__ import annotations

import asyncio
import os
import sys

VARIANT, *FLAGS = sys.argv[1].split("-")
if "polled" in FLAGS:  # gRPC reads it when it is imported
    os.environ["GRPC_EXPERIMENTS"] = "-event_engine_listener"

from benchmarks.echo.floor import serve_floor  # noqa: E402
from benchmarks.echo_server import open_doors, send  # noqa: E402
from kourou.protocol.apache.rocketmq.v2 import service_rpc  # noqa: E402
from kourou_service.engine import create_engine  # noqa: E402


async def serve(kind: str) -> None:
    engine = create_engine("queue" if kind == "queue" else "aio")
    open_doors(engine)
    print(engine.listen("127.0.0.1:0"), flush=True)
    await engine.start()
    await asyncio.Event().wait()


def main(variant: str) -> None:
    kind, _, loop = variant.partition("-")
    if kind == "floor":
        serve_floor(service_rpc.SEND_MESSAGE.path, send)
    elif loop == "asyncio":
        asyncio.run(serve(kind))
    else:
        import uvloop

        uvloop.run(serve(kind))


if __name__ == "__main__":
    main(sys.argv[1])
