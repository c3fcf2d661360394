"""gRPC's own log, on standard error: only errors, as long as nobody sets GRPC_VERBOSITY.

It has a line for every attempt to connect that fails by TLS, at both ends; what fails is told by our errors. gRPC reads
the variable once, when it is imported, so this module comes before all others that import gRPC.
"""

import os

VARIABLE = "GRPC_VERBOSITY"

if VARIABLE not in os.environ:
    os.environ[VARIABLE] = "ERROR"
    try:
        import grpc  # noqa: F401  # pyright: ignore[reportUnusedImport]
    finally:
        del os.environ[VARIABLE]
