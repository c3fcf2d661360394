"""Questions to the stack's Prometheus."""

import json
import urllib.parse
import urllib.request
from typing import Any, NamedTuple

ADDRESS = "http://127.0.0.1:9090"


class Sample(NamedTuple):
    labels: dict[str, str]
    value: float


def query(expression: str) -> list[Sample]:
    """The answer of now, one sample a series. Raises OSError; HTTPError for an expression that is wrong."""
    vector = get("query", query=expression)["result"]
    return [Sample(series["metric"], float(series["value"][1])) for series in vector]


def get(path: str, **parameters: str) -> Any:
    """The data of an answer of the HTTP API, such as get("targets")."""
    url = f"{ADDRESS}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]
