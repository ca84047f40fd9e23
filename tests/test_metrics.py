"""The reference, the dashboard and the alerts speak of what is exported, and of nothing else."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from porttrace.analysis.findings import RULES
from porttrace.analysis.metrics.catalogue import METRICS
from porttrace.cli import serving
from porttrace.cli.exporter import Exporter

CHECKOUT = Path(__file__).parent.parent
PAGE = (CHECKOUT / "docs" / "metrics.md").read_text()
GRAFANA = CHECKOUT / "docs" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "porttrace.json").read_text())
ALERTS: list[dict[str, Any]] = yaml.safe_load((GRAFANA / "alerts.yml").read_text())["groups"][0][
    "rules"
]
_ROW = re.compile(r"^\| `(porttrace_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", re.M)


def exported() -> dict[str, str]:
    """Return every metric that an exporter really writes: name to kind."""
    text = Exporter(list).text().decode()
    found = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    return {**found, **{metric.name: metric.kind for metric in METRICS}}


def named(text: str) -> set[str]:
    """Return the metrics that a query names, without the endings of histograms."""
    found = set(re.findall(r"\bporttrace_\w+", text))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in found}


def queries() -> list[str]:
    """Return the queries of the dashboard."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_reference_is_the_catalogue() -> None:
    told = {name: (kind, labels, text) for name, kind, labels, text in _ROW.findall(PAGE)}
    ours = {
        metric.name: (metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in METRICS
    }
    assert {name: row for name, row in told.items() if "_process_" not in name} == ours
    assert {name: row[0] for name, row in told.items()} == exported()


def test_every_label_value_that_is_fixed_is_explained() -> None:
    for rule in serving.RULE_NAMES:
        assert f"`{rule}`" in PAGE
    for metric in METRICS:
        for label in metric.labels:
            assert f"`{label}`" in PAGE


def test_rules_are_called_as_in_the_report() -> None:
    import importlib

    modules = [importlib.import_module(rule.__module__) for rule in RULES]
    assert tuple(module.RULE for module in modules) == serving.RULE_NAMES


def test_dashboard_and_alerts_name_only_what_is_exported() -> None:
    known = set(exported())
    for query in (*queries(), *(rule["expr"] for rule in ALERTS)):
        assert named(query), query
        assert named(query) <= known, query


def test_the_dashboard_shows_every_metric() -> None:
    shown = set().union(*map(named, queries()))
    own = {metric.name for metric in METRICS}
    assert own - shown == {"porttrace_findings_total"}  # it is for rate() in alerts of one's own


def test_the_dashboard_has_its_data_source_as_a_variable() -> None:
    kinds = {each["name"]: each["type"] for each in DASHBOARD["templating"]["list"]}
    assert kinds == {"datasource": "datasource", "instance": "query"}
    uses = re.findall(r'"uid": "([^"]*)"', json.dumps(DASHBOARD))
    assert set(uses) == {"${datasource}", "porttrace"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_every_alert_has_a_runbook_that_is_there() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, re.M)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
    for rule in ALERTS:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/metrics.md" and anchor in anchors, rule["alert"]
        assert rule["alert"] in PAGE


@pytest.mark.parametrize(
    "words", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool_accepts_the_alerts(words: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("PORTTRACE_RUN_PROMETHEUS_TESTS") == "1":
            pytest.fail("promtool is not installed: apt install prometheus", pytrace=False)
        pytest.skip("promtool is not installed: apt install prometheus")
    done = subprocess.run(
        [promtool, *words],
        cwd=GRAFANA,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout + done.stderr
