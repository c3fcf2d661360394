"""What a user reads when the local cluster is up."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from kourou.cli.options import ADMIN_VARIABLE, DEFAULT_ADMIN
from kourou.client import DEFAULT_NAMESRV, NAMESRV_VARIABLE
from kourou_dev.service import LocalCluster


def greeting(cluster: LocalCluster, data: Path) -> str:
    command = _command()
    lines = [
        f"Kourou is up. Messages are kept in {data}; Ctrl-C stops it.",
        "",
        f"  access point (RocketMQ 5 clients)   {cluster.access_point}",
        f"  access point over TLS               {cluster.tls_access_point}{_believed(cluster)}",
        f"  broker                              {cluster.broker}",
        f"  admin service                       {cluster.admin}",
        f"  metrics                             http://{cluster.metrics}/metrics",
        "",
        "Try, in another terminal:",
        "",
        *(f"  {line}" for line in _variables(cluster)),
        f"  {command} topic create hello",
        f'  {command} send hello "first light"',
        f"  {command} receive hello --group readers --count 1",
        f"  {command} --help",
        "",
    ]
    return "\n".join(lines)


def _believed(cluster: LocalCluster) -> str:
    return "" if cluster.ca is None else f" (self-made certificate; its CA is {cluster.ca})"


def _variables(cluster: LocalCluster) -> list[str]:
    """Needed where the command would not find the cluster by itself."""
    lines: list[str] = []
    if cluster.admin != DEFAULT_ADMIN:
        lines.append(f"export {ADMIN_VARIABLE}={cluster.admin}")
    if cluster.access_point != DEFAULT_NAMESRV:
        lines.append(f"export {NAMESRV_VARIABLE}={cluster.access_point}")
    return lines


def _command() -> str:
    """`kourou` as this shell finds it, else its path."""
    running = Path(sys.argv[0])
    found = shutil.which("kourou")
    if running.name != "kourou" or (found and Path(found).resolve() == running.resolve()):
        return "kourou"
    path = os.path.relpath(running)
    return shlex.quote(str(running) if path.startswith("..") else path)
