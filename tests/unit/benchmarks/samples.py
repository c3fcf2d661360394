"""Results as a run would give them."""

from benchmarks.rivals.results import BODY_BYTES, Results, Sample

_BESIDE = {"fdatasync_p50_ms": 0.2, "work_on_server_core_ms": 50.0}


def results_of(**values: list[float]) -> Results:
    """`kafka_default__publish__per_s=[1, 2]`: the figure of each round."""
    results = Results(run={"machine": "a machine", "date": "2026-01-01", "rounds": 2})
    for name, figures in values.items():
        participant, measure, value = name.split("__")
        for round_, figure in enumerate(figures):
            results.samples.append(Sample(round_, participant.replace("_", "-"), measure, {value: figure}, _BESIDE))
    return results


def sample(participant: str, measure: str, round_: int = 0, size: int = BODY_BYTES, **values: float) -> Sample:
    return Sample(round_, participant, measure, values, _BESIDE, size)
