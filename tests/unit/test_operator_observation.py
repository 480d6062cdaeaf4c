"""What the operator makes of what it sees, at the moments between two states."""

from __future__ import annotations

from typing import Any

import pytest

from tidewarden.resources import AnomalyDetector, MetricSimulation
from tidewarden_operator import status
from tidewarden_operator.backends import Outcome, Standing
from tidewarden_operator.observation import Observation

AS_PLANNED = Standing(Outcome(True), Outcome(True))
LEARNED = {"series": 24, "learning": 3, "ready": 21, "warmup": 120, "stateBytes": 4_096}


def _simulation() -> MetricSimulation:
    fleet = {"tenants": ["shop"], "clusters": 1, "nodes": 1, "metrics": ["latency_ms"]}
    content = {"metadata": {"name": "r", "namespace": "team"}, "spec": {"stream": "shop", "points": 5, "fleet": fleet}}
    return MetricSimulation.model_validate({"kind": "MetricSimulation", **_version(), **content})


def _detector(*, paused: bool) -> AnomalyDetector:
    content = {"metadata": {"name": "auto", "namespace": "team"}, "spec": {"stream": "shop", "paused": paused}}
    return AnomalyDetector.model_validate({"kind": "AnomalyDetector", **_version(), **content})


def _version() -> dict[str, str]:
    return {"apiVersion": "tidewarden.dev/v1alpha1"}


def _condition(report: status.Report, type_: str) -> tuple[str, str]:
    return next((c.status, c.reason) for c in report.conditions if c.type == type_)


@pytest.mark.parametrize("phase", ["Succeeded", "Pending"])
def test_a_simulation_that_has_just_ended_is_not_starting(phase: str) -> None:
    """Its pod ends a second before its Job says so; nobody is warned in between that pods are starting."""
    job: dict[str, Any] = {"kind": "Job", "metadata": {"name": "r-simulate"}, "spec": {}, "status": {"ready": 0}}
    pod = {"kind": "Pod", "metadata": {"name": "r-simulate-x", "labels": {}}, "status": {"phase": phase}}
    report = status.simulation(_simulation(), Observation.of([job, pod], {}), {})
    ended = phase == "Succeeded"
    assert _condition(report, "Ready") == (("True", "AsPlanned") if ended else ("False", "PodsNotReady"))
    assert report.fields["phase"] == ("Running" if ended else "Waiting")


@pytest.mark.parametrize("paused", [True, False])
def test_a_paused_detector_still_shows_what_it_has_learned(paused: bool) -> None:
    """A pause takes the pods, not the series from `kubectl get`; without a pause, only what pods say counts."""
    report = status.detector(_detector(paused=paused), Observation(), AS_PLANNED, {}, LEARNED, flowing=False)
    shown = {name: report.fields[name] for name in LEARNED}
    assert shown == (LEARNED if paused else dict.fromkeys(LEARNED, 0))
    assert _condition(report, "ModelReady") == ("False", "Paused" if paused else "NoSeries")


def test_the_three_kinds_of_drift_are_three_conditions() -> None:
    """Each kind of drift has its own condition: unknown before there is a window to judge, never another's fault."""
    calm = {"data_judged": 9, "model_judged": 1, "source_judged": 9}
    moved = {**calm, "data_drift": 1, "data_drift_message": "1 of 9 series has other values: shop/eu/n1/cpu (PSI 0.61)"}
    told = []
    cases: list[dict[str, Any]] = [{}, calm, moved]
    for facts in cases:
        seen = Observation(said={"watch-detect-0": {"board": {"detectors": {"auto": facts}}}})
        report = status.detector(_detector(paused=False), seen, AS_PLANNED, {}, {}, flowing=True)
        told.append([_condition(report, kind)[0] for kind in ("DataDrift", "ModelDrift", "SourceDrift")])
    assert told == [["Unknown"] * 3, ["False"] * 3, ["True", "False", "False"]]
    assert "shop/eu/n1/cpu" in next(c.message for c in report.conditions if c.type == "DataDrift")
