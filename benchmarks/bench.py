"""What every benchmark is given."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bench:
    folder: Path
    """Empty, on a real disk; gone when the benchmark is over."""
    seconds: float
    """Length of one measurement."""
    rounds: int
    """Compared figures are taken in turn, so many times."""
