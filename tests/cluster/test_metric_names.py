"""What dashboards and alerts ask for is what the services show, by name and by label."""

import json
import re
import urllib.request
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster, Node
from tests.unit.deploy.files import used_metrics

NODE_LABELS = {"cluster", "node_type", "node_id"}


@pytest.fixture
def texts(cluster: Cluster) -> dict[str, str]:
    """What each service answers at /metrics, by its name."""
    return {node.name: _read(f"http://{_metrics_address(node)}/metrics") for node in cluster.nodes}


def test_what_is_asked_for_is_shown(texts: dict[str, str]) -> None:
    shown = {name for text in texts.values() for name in _names(text)}
    missing = {name: where for name, where in used_metrics().items() if name not in shown}
    assert not missing


def test_each_sample_says_whose_it_is(texts: dict[str, str]) -> None:
    """Alerts and dashboards tell nodes apart by these labels."""
    for name, text in texts.items():
        for line in text.splitlines():
            if not line.startswith("#"):
                labels = set(re.findall(r'(\w+)="', line))
                assert labels >= NODE_LABELS, f"{name}: {line}"


def _names(text: str) -> Iterator[str]:
    """Of all metrics that are shown, those without a sample too."""
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            yield line.split()[2]


def _metrics_address(node: Node) -> str:
    for line in node.output.splitlines():
        said = json.loads(line)
        if "metrics" in said:
            return said["metrics"]
    raise AssertionError(f"{node.name} does not say where its metrics are:\n{node.output}")


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()
