"""What was measured, sample by sample, and what it comes to: medians, spreads, ratios within the rounds."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

BODY_BYTES = 1024


@dataclass(frozen=True)
class Sample:
    """One measurement of one participant in one round."""

    round: int
    participant: str
    measure: str
    values: Mapping[str, float]
    beside: Mapping[str, float] = field(default_factory=dict[str, float])
    """What the machine could do just before."""
    body_bytes: int = BODY_BYTES


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of at least one value."""
        values = list(values)
        return cls(median(values), min(values), max(values))


@dataclass
class Results:
    run: dict[str, Any] = field(default_factory=dict[str, Any])
    """When, where, how: see `__main__.py`."""
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    """Why, by participant, before or during the run."""
    samples: list[Sample] = field(default_factory=list[Sample])

    def by_round(self, participant: str, measure: str, value: str, body_bytes: int = BODY_BYTES) -> dict[int, float]:
        key = (participant, measure, body_bytes)
        return {
            sample.round: sample.values[value]
            for sample in self.samples
            if (sample.participant, sample.measure, sample.body_bytes) == key and value in sample.values
        }

    def spread(self, participant: str, measure: str, value: str, body_bytes: int = BODY_BYTES) -> Spread | None:
        values = self.by_round(participant, measure, value, body_bytes)
        return Spread.of(values.values()) if values else None

    def ratio(
        self, participant: str, other: str, measure: str, value: str, body_bytes: int = BODY_BYTES
    ) -> Spread | None:
        """Of the first to the other, over the rounds in which both were measured."""
        ours = self.by_round(participant, measure, value, body_bytes)
        theirs = self.by_round(other, measure, value, body_bytes)
        ratios = [ours[each] / theirs[each] for each in ours if theirs.get(each)]
        return Spread.of(ratios) if ratios else None

    def beside(self, participant: str, measure: str, value: str) -> float | None:
        """The median of what the machine could do beside a measure."""
        values = [
            sample.beside[value]
            for sample in self.samples
            if (sample.participant, sample.measure) == (participant, measure) and value in sample.beside
        ]
        return median(values) if values else None

    def participants(self) -> list[str]:
        return list(dict.fromkeys(sample.participant for sample in self.samples))

    def sizes(self, measure: str, value: str) -> list[int]:
        """Of the bodies with which a figure was measured."""
        sizes = {each.body_bytes for each in self.samples if each.measure == measure and value in each.values}
        return sorted(sizes)


def to_line(kind: str, content: Mapping[str, Any]) -> str:
    return json.dumps({"kind": kind, **content})


def sample_line(sample: Sample) -> str:
    return to_line("sample", asdict(sample))


def from_lines(lines: Iterable[str]) -> Results:
    """What the lines of a file of a run tell."""
    results = Results()
    for line in lines:
        content = json.loads(line)
        match content.pop("kind"):
            case "run":
                results.run = content
            case "left_out":
                results.left_out[content["participant"]] = content["why"]
            case "sample":
                results.samples.append(Sample(**content))
            case kind:
                raise ValueError(f"a line of unknown kind {kind!r}")
    return results
