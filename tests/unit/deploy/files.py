"""What deploy/prometheus and deploy/grafana ask Prometheus for, as tests read it."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy/prometheus"
GRAFANA = ROOT / "deploy/grafana"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_OF_HISTOGRAMS = re.compile(r"_(bucket|count|sum)$")
_OURS = ("rocketmq_", "kourou_", "process_")


class Query(NamedTuple):
    where: str
    """Dashboard, panel and the query's letter in it."""
    expr: str
    """With variables."""
    instant: bool
    panel: str
    """Its title; empty for a mark."""
    no_value: str
    """What the panel says, in words, where it is empty; empty for one that never should be."""


class Variable(NamedTuple):
    where: str
    name: str
    metric: str
    """With its selector, which may hold variables that come before."""
    label: str


@cache
def dashboards() -> Mapping[str, dict[str, Any]]:
    """By the name of the file."""
    return {path.name: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}


def queries() -> Iterator[Query]:
    """Of all panels and marks of all dashboards."""
    for file, board in dashboards().items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                where = f"{file}: {panel['title']}, {target['refId']}"
                no_value = panel["fieldConfig"]["defaults"].get("noValue", "").strip("–")
                yield Query(where, target["expr"], target["instant"], panel["title"], no_value)
        for mark in board["annotations"]["list"]:
            yield Query(f"{file}: the marks {mark['name']}", mark["expr"], False, "", "")


def variables() -> Iterator[Variable]:
    for file, board in dashboards().items():
        for variable in board["templating"]["list"]:
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert asked, f"{file}: {variable['query']['query']}"
            yield Variable(f"{file}: ${variable['name']}", variable["name"], asked[1], asked[2])


def rules(file: str) -> Iterator[Mapping[str, Any]]:
    for group in yaml.safe_load((PROMETHEUS / file).read_text())["groups"]:
        yield from group["rules"]


def alerts() -> Mapping[str, Mapping[str, Any]]:
    return {rule["alert"]: rule for rule in rules("alerts.yml")}


def recorded() -> set[str]:
    """The names of what recording rules make."""
    return {rule["record"] for rule in rules("recording.yml")}


def metrics(expr: str) -> set[str]:
    """The services' metrics in an expression, as they name them: without what Prometheus adds for histograms."""
    names = _NAME.findall(_STRING.sub("", expr))
    return {_OF_HISTOGRAMS.sub("", name) for name in names if name.startswith(_OURS)}


def recordings(expr: str) -> set[str]:
    """What an expression takes from recording rules."""
    return {name for name in _NAME.findall(_STRING.sub("", expr)) if ":" in name.strip(":")}


def used_metrics() -> Mapping[str, str]:
    """All metrics of the services that anything asks for, and one place that does."""
    places = [(query.where, query.expr) for query in queries()]
    places += [(variable.where, variable.metric) for variable in variables()]
    for file in ("recording.yml", "alerts.yml"):
        places += [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules(file)]
    return {name: where for where, expr in places for name in metrics(expr)}


def filled_in(expr: str, values: Mapping[str, str]) -> str:
    """With variables replaced; KeyError for one that is not among the values."""
    return re.sub(r"\$(\w+)", lambda variable: values[variable[1]], expr)
