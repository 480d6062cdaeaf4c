"""The alert rules by Prometheus' own tool: each fires when it should, is quiet before, and resolves."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tidewarden_operator.plan.rules import all_groups, pipeline_groups

pytestmark = pytest.mark.prometheus
RULES = {rule["alert"]: rule for group in all_groups() for rule in group["rules"]}
WATCH = {"namespace": "shop", "stream": "orders", "detector": "watch"}
SOURCE = {"namespace": "shop", "stream": "orders", "source": "push"}
SERVICE = {"namespace": "shop", "service": "detect.watch"}
RECEIVER = {"namespace": "shop", "policy": "oncall", "receiver": "webhook"}
POD = {"namespace": "shop", "job": "tidewarden", "instance": "10.0.0.1:9464", "pod": "watch-0"}
PLAYED = {"namespace": "shop", "simulation": "play", "detector": "watch"}


class Case(NamedTuple):
    """What happens, minute by minute, and what is told.

    Args:
        alert: its name.
        series: metric with its labels → values in promtool's notation, one a minute.
        labels: of the alert that fires.
        fires: minute at which it does.
        over: minute at which it does no more.
        quiet: minute at which it does not yet.
    """

    alert: str
    series: Mapping[str, str]
    labels: Mapping[str, str]
    fires: int
    over: int
    quiet: int = 3


def metric(name: str, *parts: Mapping[str, str], **more: str) -> str:
    """A series as promtool writes it."""
    labels = {key: value for part in (*parts, more) for key, value in part.items()}
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def bucket(le: str) -> str:
    return metric("tidewarden_score_latency_seconds_bucket", WATCH, le=le)


def deliveries(result: str) -> str:
    return metric("tidewarden_alert_deliveries_total", RECEIVER, result=result)


ACCEPTED, REFUSED = (metric(f"tidewarden_{name}_total", SOURCE) for name in ("readings", "rejected"))
DELIVERED, INTERVAL = (
    metric(f"tidewarden_source_{name}_seconds", SOURCE) for name in ("delivered_timestamp", "interval")
)
LAG, HANDLED = metric("tidewarden_lag_records", SERVICE), metric("tidewarden_records_handled_total", SERVICE)
OUTBOX = metric("tidewarden_alert_outbox_alerts", RECEIVER)
CASES = {
    "a process is away": Case(
        "TidewardenServiceDown", {metric("up", POD): "1+0x4 0+0x10 1+0x20"}, POD, fires=8, over=20
    ),
    "half of the series at once": Case(
        "TidewardenHighAnomalyRate",
        {
            metric("tidewarden_anomalies_total", WATCH, kind="spike"): "0+0x10 0+2x5 10+0x80",
            metric("tidewarden_model_series", WATCH, state="ready"): "20+0x100",
        },
        WATCH, fires=20, over=45, quiet=10,
    ),
    "two seconds for a score": Case(
        "TidewardenHighScoreLatency",
        {bucket("1"): "0+10x10 100+0x20 100+10x60", bucket("2.5"): "0+10x100", bucket("+Inf"): "0+10x100"},
        WATCH, fires=28, over=40, quiet=10,
    ),
    "a running simulation finds too little": Case(
        "TidewardenLowAccuracy",
        {metric("tidewarden_evaluation_f1_ratio", WATCH, simulation="play"): "0.3+0x20 0.9+0x20"},
        PLAYED, fires=12, over=25,
    ),
    "a simulation that has ended found too little": Case(
        "TidewardenLowAccuracy",
        {
            metric(
                "tidewarden_operator_evaluation", simulation="play", detector="watch", measure="f1",
                resource_namespace="shop", namespace="system",
            ): "0.3+0x20 0.9+0x20"
        },
        PLAYED, fires=12, over=25,
    ),
    "hours behind": Case(
        "TidewardenConsumerLag", {LAG: "0+0x5 100000+0x20 0+0x20", HANDLED: "0+600x60"}, SERVICE, fires=15, over=35
    ),
    "behind and standing still": Case(
        "TidewardenConsumerLag", {LAG: "0+0x5 10+0x20 0+0x20", HANDLED: "5+0x60"}, SERVICE, fires=15, over=35
    ),
    "half of the readings refused": Case(
        "TidewardenRejects", {ACCEPTED: "0+60x80", REFUSED: "0+0x5 0+60x25 1500+0x60"}, SOURCE, fires=25, over=50
    ),
    "nothing comes any more": Case(
        "TidewardenSourceSilent",
        {DELIVERED: "0+60x20 1200+0x40 3720+60x60", INTERVAL: "60+0x120"}, SOURCE, fires=38, over=70, quiet=20,
    ),
    "nothing to learn from": Case(
        "TidewardenModelStale",
        {
            metric("tidewarden_learned_timestamp_seconds", WATCH): "0+60x10 600+0x30 2460+60x30",
            ACCEPTED: "0+60x100",
        },
        WATCH, fires=35, over=45, quiet=20,
    ),
    "state is not saved": Case(
        "TidewardenSnapshotOld",
        {metric("tidewarden_snapshot_timestamp_seconds", SERVICE): "1+60x10 600+0x30 2460+60x30"},
        SERVICE, fires=30, over=45, quiet=15,
    ),
    "Elasticsearch is away": Case(
        "TidewardenStoreUnavailable",
        {metric("tidewarden_store_available", SERVICE): "1+0x5 0+0x20 1+0x20"}, SERVICE, fires=15, over=30,
    ),
    "a receiver refuses": Case(
        "TidewardenAlertsUndelivered",
        {deliveries("refused"): "0+0x5 1+0x60", deliveries("sent"): "0+1x60", OUTBOX: "0+0x60"},
        RECEIVER, fires=14, over=30,
    ),
    "a receiver does not answer": Case(
        "TidewardenAlertsUndelivered",
        {deliveries("refused"): "0+0x60", deliveries("sent"): "0+0x35 3+0x30", OUTBOX: "0+0x5 3+0x30 0+0x30"},
        RECEIVER, fires=25, over=50,
    ),
    "no operator": Case(
        "TidewardenOperatorDown",
        {metric("tidewarden_operator_queue_depth", role="operator"): "0+0x5 _x25 0+0x20"}, {}, fires=25, over=40,
    ),
    "reconciling keeps failing": Case(
        "TidewardenOperatorErrors",
        {metric("tidewarden_operator_errors_total", kind="MetricStream"): "0+1x20 20+0x40"},
        {"kind": "MetricStream"}, fires=18, over=50,
    ),
    "a resource waits": Case(
        "TidewardenOperatorStuck",
        {metric("tidewarden_operator_queue_oldest_seconds", role="operator"): "0+0x4 300+0x15 0+0x20"},
        {}, fires=15, over=30,
    ),
    "a watch is silent": Case(
        "TidewardenOperatorStuck",
        {metric("tidewarden_operator_watch_age_seconds", kind="Pod"): "5+0x4 300+0x15 5+0x20"}, {}, fires=15, over=30,
    ),
    "a resource is not Ready": Case(
        "TidewardenResourceNotReady",
        {metric("tidewarden_operator_resources_not_ready", kind="MetricStream"): "0+0x4 1+0x25 0+0x20"},
        {"kind": "MetricStream"}, fires=25, over=40,
    ),
}  # fmt: skip


def promtool(*arguments: str) -> None:
    """Run it; it must be content."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool (Debian: prometheus)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    """Of everything, and of one namespace."""
    for name, groups in (("all", all_groups()), ("shop", pipeline_groups("shop"))):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"groups": groups}))
        promtool("check", "rules", str(tmp_path / f"{name}.yaml"))


def test_every_rule_has_a_case() -> None:
    """No rule without a test that makes it fire."""
    assert {case.alert for case in CASES.values()} == set(RULES)


@pytest.mark.parametrize("scope", [None, "shop"], ids=["everything", "one namespace"])
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_it_fires_and_resolves(case: Case, scope: str | None, tmp_path: Path) -> None:
    """Quiet at first, firing when it has lasted, over when it is: as the rule of all, and as a namespace's own."""
    groups = all_groups() if scope is None else [*pipeline_groups(scope), *all_groups()[1:]]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    asked = f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}'
    severity = RULES[case.alert]["labels"]["severity"]
    told = metric("ALERTS", case.labels, alertname=case.alert, alertstate="firing", severity=severity)
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "promql_expr_test": [
                    {"expr": asked, "eval_time": f"{case.quiet}m", "exp_samples": []},
                    {"expr": asked, "eval_time": f"{case.fires}m", "exp_samples": [{"labels": told, "value": 1}]},
                    {"expr": asked, "eval_time": f"{case.over}m", "exp_samples": []},
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", str(tmp_path / "test.yaml"))


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_its_words_use_labels_that_it_has(case: Case) -> None:
    """No "<no value>" in what people are told."""
    said = " ".join(RULES[case.alert]["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", said)) <= set(case.labels)


def test_rules_of_one_namespace_are_quiet_about_another(tmp_path: Path) -> None:
    """The same happens in a namespace beside it: nothing fires."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": pipeline_groups("bank")}))
    series = {name: values for case in CASES.values() for name, values in case.series.items()}
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {"expr": "ALERTS", "eval_time": f"{minute}m", "exp_samples": []} for minute in range(0, 40, 5)
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", str(tmp_path / "test.yaml"))


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("half of the series at once", "watch has found 10 anomalies on orders in 15 minutes"),
        ("a running simulation finds too little", "watch reaches F1 0.30 on simulation play"),
    ],
)
def test_a_figure_is_told_as_people_write_it(name: str, summary: str, tmp_path: Path) -> None:
    """Counts are whole and F1 has two digits: not 10.34 anomalies, nor an F1 of 300m."""
    case = CASES[name]
    rule = RULES[case.alert]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": all_groups()}))
    told = {
        "exp_labels": {**case.labels, "severity": rule["labels"]["severity"]},
        "exp_annotations": {**rule["annotations"], "summary": summary},
    }
    test = {
        "rule_files": ["rules.yaml"],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": key, "values": values} for key, values in case.series.items()],
                "alert_rule_test": [{"alertname": case.alert, "eval_time": f"{case.fires}m", "exp_alerts": [told]}],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", str(tmp_path / "test.yaml"))
