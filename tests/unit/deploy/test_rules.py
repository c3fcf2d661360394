"""Prometheus' configuration and rules, by promtool; and that each alert is tested and documented."""

import re

import pytest
import yaml

from tests.unit.deploy.files import PROMETHEUS, ROOT, alerts
from tests.unit.deploy.promtool import promtool

ALERTS = alerts()


def test_the_configuration_is_valid() -> None:
    said = promtool("check", "config", "prometheus.yml")
    assert "2 rule files found" in said


def test_the_rules_are_valid() -> None:
    said = promtool("check", "rules", "recording.yml", "alerts.yml")
    assert f"{len(ALERTS)} rules found" in said


def test_alerts_fire_when_they_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_what_is_wrong_is_noticed() -> None:
    """By the way promtool is run here: else those above could not fail."""
    with pytest.raises(AssertionError, match="promtool check rules"):
        promtool("check", "rules", "prometheus.yml")


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_says_what_is_wrong_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"docs/operations.md#{kebab(name)}"


def test_each_alert_has_its_section() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^### (.*)$", text, re.MULTILINE)}
    assert {kebab(name) for name in ALERTS} <= headings


def test_each_alert_is_tested_both_ways() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for test in yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]:
        for case in test.get("alert_rule_test", ()):
            (fires if case.get("exp_alerts") else silent).add(case["alertname"])
    assert fires == ALERTS.keys()
    assert silent == ALERTS.keys()


def kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
