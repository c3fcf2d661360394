"""Each dashboard is sound: whatever can be said of its file without a Grafana and a Prometheus."""

from collections import Counter
from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.unit.deploy.files import (
    GRAFANA,
    ROOT,
    dashboards,
    filled_in,
    metrics,
    queries,
    recorded,
    recordings,
    rules,
    used_metrics,
    variables,
)

BOARDS = dashboards()
GIVEN = {"__rate_interval": "20s", "__range": "900s"}
"""Grafana's own variables that are used."""


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return BOARDS[request.param]


def provisioned(kind: str) -> dict[str, Any]:
    [file] = (GRAFANA / "provisioning" / kind).iterdir()
    return yaml.safe_load(file.read_text())


def test_there_are_those_that_are_promised() -> None:
    assert {board["uid"] for board in BOARDS.values()} == {
        "kourou-overview",
        "kourou-broker",
        "kourou-topic",
        "kourou-namesrv",
    }
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)


def test_it_opens_on_the_last_minutes_and_follows(board: dict[str, Any]) -> None:
    assert board["time"] == {"from": "now-15m", "to": "now"}
    assert board["refresh"] == "10s"
    assert board["description"]


def test_all_is_asked_of_the_one_data_source(board: dict[str, Any]) -> None:
    [source] = provisioned("datasources")["datasources"]
    asked = {"type": source["type"], "uid": source["uid"]}
    askers = [*panels(board), *board["annotations"]["list"], *board["templating"]["list"]]
    askers += [target for panel in panels(board) for target in panel["targets"]]
    assert [asker for asker in askers if asker["datasource"] != asked] == []


def test_panels_can_be_told_apart(board: dict[str, Any]) -> None:
    ids = Counter(panel["id"] for panel in board["panels"])
    assert max(ids.values()) == 1
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["type"] in ("table", "state-timeline")
        ref_ids = Counter(target["refId"] for target in panel["targets"])
        assert max(ref_ids.values()) == 1, panel["title"]


def test_panels_do_not_overlap(board: dict[str, Any]) -> None:
    for one, other in combinations(board["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, f"{one['title']} and {other['title']}"
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])


def test_lines_have_names(board: dict[str, Any]) -> None:
    for panel in panels(board):
        if panel["type"] in ("timeseries", "state-timeline"):
            legends = Counter(target["legendFormat"] for target in panel["targets"])
            assert "__auto" not in legends, panel["title"]
            assert max(legends.values()) == 1, panel["title"]


def test_variables_in_queries_exist(board: dict[str, Any]) -> None:
    values = {**GIVEN, **{variable["name"]: "x" for variable in board["templating"]["list"]}}
    for panel in panels(board):
        for target in panel["targets"]:
            assert "$" not in filled_in(target["expr"], values)


def test_a_variable_begins_with_all(board: dict[str, Any]) -> None:
    for variable in board["templating"]["list"]:
        assert variable["includeAll"]
        assert variable["current"]["value"] in ("$__all", ["$__all"])
        assert variable["allValue"] == ".*", "an empty list of values, as of an idle cluster, would find nothing"


def test_recordings_in_queries_are_made() -> None:
    asked = {name for query in queries() for name in recordings(query.expr)}
    asked |= {
        name for file in ("recording.yml", "alerts.yml") for rule in rules(file) for name in recordings(rule["expr"])
    }
    assert asked == recorded()


def test_variables_ask_for_label_values() -> None:
    assert {variable.name for variable in variables()} == {"cluster", "broker", "topic", "group", "namesrv"}


def test_metrics_are_found_in_expressions() -> None:
    """What a test with real processes compares with what these show."""
    expr = 'a:kourou_x:sum / rate(rocketmq_y_count{z="kourou_no"}[1m]) or on (node) kourou_z_total'
    assert metrics(expr) == {"rocketmq_y", "kourou_z_total"}
    assert recordings(expr) == {"a:kourou_x:sum"}
    assert {"kourou_log_sync_seconds", "kourou_disk_writable", "process_start_time_seconds"} <= used_metrics().keys()


def test_compose_mounts_them_where_grafana_looks() -> None:
    grafana = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    [provider] = provisioned("dashboards")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    folder, _, home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].rpartition("/")
    assert folder == provider["options"]["path"]
    assert BOARDS[home]["uid"] == "kourou-overview"


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]
