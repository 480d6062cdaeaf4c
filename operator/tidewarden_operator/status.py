"""From what pods say to conditions and counts: pure. One function for each kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tidewarden.resources import AlertPolicy, AnomalyDetector, MetricSimulation, MetricStream
from tidewarden.resources.base import format_duration
from tidewarden_operator.backends import Outcome, Standing
from tidewarden_operator.conditions import Condition
from tidewarden_operator.keys import Manifest
from tidewarden_operator.observation import Observation, ready_pods

Facts = Mapping[str, Any]

_LEARNED = ("beganWith", "series", "learning", "ready", "warmup", "stateBytes", "threshold")  # kept while no pod runs


@dataclass(slots=True)
class Report:
    """What a status says: conditions, and the fields of its kind in the CRD's spelling."""

    conditions: list[Condition]
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Readings of a stream, from all that feed it."""

    readings: int = 0
    rejected: int = 0
    newest_ms: int | None = None

    @classmethod
    def of(cls, board: Mapping[str, Mapping[str, Facts]]) -> Arrivals:
        """What the sources on a board have delivered."""
        sources = board.get("sources", {}).values()
        newest = [int(facts["newest_ms"]) for facts in sources if facts.get("newest_ms") is not None]
        return cls(
            sum(int(facts.get("accepted") or 0) for facts in sources),
            sum(int(facts.get("rejected") or 0) for facts in sources),
            max(newest, default=None),
        )

    def plus(self, other: Arrivals) -> Arrivals:
        """Both together."""
        newest = [at for at in (self.newest_ms, other.newest_ms) if at is not None]
        return Arrivals(self.readings + other.readings, self.rejected + other.rejected, max(newest, default=None))


def refused(reason: str, message: str) -> Report:
    """A resource that cannot be acted upon; what runs for it goes on as it is."""
    return Report(
        [
            Condition("Accepted", "False", reason, message),
            Condition("Ready", "False", "NotAccepted", message),
        ]
    )


def stream(
    resource: MetricStream, seen: Observation, standing: Standing, arrived: Arrivals, detectors: int, *, flowing: bool
) -> Report:
    """Status of a MetricStream."""
    board = seen.board()
    name = resource.metadata.name
    sources = [_source(source.name, source.kind, board.get("sources", {}), name) for source in resource.spec.sources]
    archive = board.get("archives", {}).get(name, {})
    told: dict[str, Any] = {
        "readings": arrived.readings,
        "rejected": arrived.rejected,
        "sources": sources,
        "partitions": resource.spec.partitions,
        "detectors": detectors,
        "lagRecords": int(archive.get("lag_records") or 0),
    }
    if arrived.newest_ms is not None:
        told["lastReadingTime"] = _time(arrived.newest_ms)
    conditions = [
        _accepted(),
        _outcome("TopicsReady", standing.topics),
        _outcome("StoreReady", standing.store),
        _flow(resource.spec.paused, flowing, resource),
        *_health(seen, resource.spec.paused, standing, [s for s in sources if s["state"] == "failed"]),
    ]
    return Report(conditions, told)


def detector(
    resource: AnomalyDetector,
    seen: Observation,
    standing: Standing,
    selector: Mapping[str, str],
    before: Facts,
    *,
    flowing: bool,
) -> Report:
    """Status of an AnomalyDetector; while it is paused, what it has learned is what ``before`` says."""
    facts = seen.board().get("detectors", {}).get(resource.metadata.name, {})
    pods = seen.pods_of("detect")
    told: dict[str, Any] = {
        "model": resource.spec.model.kind,
        "beganWith": list(facts.get("began_with") or []),
        "series": int(facts.get("series") or 0),
        "learning": int(facts.get("learning") or 0),
        "ready": int(facts.get("ready") or 0),
        "warmup": int(facts.get("warmup") or 0),
        "message": str(facts.get("message") or ""),
        "anomaliesLastHour": int(facts.get("anomalies_last_hour") or 0),
        "lagRecords": int(facts.get("lag_records") or 0),
        "stateBytes": int(facts.get("state_bytes") or 0),
        "replicas": len(pods),
        "readyReplicas": ready_pods(pods),
        "selector": ",".join(f"{name}={value}" for name, value in sorted(selector.items())),
    }
    if facts.get("threshold") is not None:
        told["threshold"] = facts["threshold"]
    rival = seen.board().get("candidates", {}).get(resource.metadata.name)
    if resource.spec.candidate is not None and rival:
        told["candidates"] = [_candidate(rival)]
    if resource.spec.paused and not facts:
        told |= {name: before[name] for name in _LEARNED if name in before}
    conditions = [
        _accepted(),
        _outcome("TopicsReady", standing.topics),
        _flow(resource.spec.paused, flowing, resource),
        _model(told, paused=resource.spec.paused),
        *_drifts(facts, watched=resource.spec.drift.watch),
        *_health(seen, resource.spec.paused, Standing(standing.topics, Outcome(True))),
    ]
    return Report(conditions, told)


_CANDIDATE_COUNTS = {
    "series": "series", "readings": "readings", "championAlarms": "champion_alarms",
    "candidateAlarms": "candidate_alarms", "championOnly": "champion_only", "candidateOnly": "candidate_only",
    "championFound": "champion_found", "candidateFound": "candidate_found", "championFalse": "champion_false",
    "candidateFalse": "candidate_false",
}  # fmt: skip


def _candidate(facts: Mapping[str, Any]) -> Facts:
    told: dict[str, Any] = {name: int(facts.get(fact) or 0) for name, fact in _CANDIDATE_COUNTS.items()}
    if facts.get("settled"):
        told["agreement"] = round(int(facts.get("agreed") or 0) / int(facts["settled"]), 4)
    verdicts = sorted((facts.get("verdicts") or {}).items(), key=lambda item: (-item[1], item[0]))
    return {
        "version": str(facts.get("version") or ""),
        "mode": str(facts.get("mode") or ""),
        "verdict": ", ".join(f"{count} {mode}" for mode, count in verdicts),
        "message": str(facts.get("message") or "")[:1_024],
        **told,
    }


def policy(resource: AlertPolicy, seen: Observation) -> Report:
    """Status of an AlertPolicy."""
    board = seen.board()
    name = resource.metadata.name
    facts = board.get("policies", {}).get(name, {})
    receivers = []
    for receiver in resource.spec.receivers:
        called = receiver.name or receiver.kind
        known = board.get("receivers", {}).get(f"{name}/{called}", {})
        receivers.append(
            {
                "name": called,
                "kind": receiver.kind,
                "sent": int(known.get("sent") or 0),
                "failed": int(known.get("retried") or 0) + int(known.get("refused") or 0),
                "message": str(known.get("message") or "")[:1_024],
            }
        )
    told = {
        "firing": int(facts.get("firing") or 0),
        "pending": int(facts.get("pending") or 0),
        "lagRecords": sum(int(said.get("lag_records") or 0) for said in seen.said_by("alert")),
        "receivers": receivers,
    }
    troubled = [r for r in receivers if r["message"]]
    return Report([_accepted(), *_health(seen, resource.spec.paused, None, troubled)], told)


def simulation(resource: MetricSimulation, seen: Observation, before: Facts) -> Report:
    """Status of a MetricSimulation: while its pod lives from what it says, afterwards from its last word.

    Pods that have ended are removed by and by; what ``before``, the status so far, says of the evaluation stays.
    """
    facts: Facts = seen.board().get("simulations", {}).get(resource.metadata.name, {})
    job = next((w for w in seen.workloads if w["kind"] == "Job"), None)
    last = _last_word(seen.pods)
    phase = _phase(job, seen, paused=resource.spec.paused)
    facts = {**last, **facts} if phase not in {"Completed", "Failed"} else {**facts, **last}
    told: dict[str, Any] = {"phase": phase, "played": int(facts.get("played") or 0)}
    if facts.get("total"):
        told["total"] = int(facts["total"])
        told["percent"] = min(100, int(100 * told["played"] / told["total"]))
    status = (job or {}).get("status") or {}
    for name, key in (("startTime", "startTime"), ("completionTime", "completionTime")):
        if status.get(key):
            told[name] = status[key]
    evaluation = [_evaluation(entry) for entry in facts.get("evaluation") or [] if entry.get("detector")]
    if evaluation:
        told["evaluation"] = evaluation
    elif phase in {"Completed", "Failed"} and not seen.pods:
        told |= {name: before[name] for name in ("played", "total", "percent", "evaluation") if name in before}
    conditions = [_accepted(), Condition.holds("Completed", phase == "Completed", phase, _played(told))]
    if phase in {"Completed", "Failed"}:
        ended = phase == "Completed"
        message = "played to its end" if ended else _failure(job, last)
        conditions += [Condition.holds("Ready", ended, phase, message), _paused(False)]
        conditions.append(Condition.holds("Degraded", not ended, phase, message))
    else:
        conditions += _health(seen, resource.spec.paused, None)
    return Report(conditions, told)


_DRIFTS = (
    ("DataDrift", "data", "ValuesChanged", "values lie as they lay in the reference window"),
    ("ModelDrift", "model", "OutOfCalibration", "p-values and alarms are what they should be"),
    ("SourceDrift", "source", "SourceChanged", "series come as the stream declares"),
)


def _drifts(facts: Facts, *, watched: bool) -> list[Condition]:
    """Whether the data, the model or the source are no longer what they were; three conditions, never mixed up."""
    if not watched:
        return []
    found = []
    for type_, what, reason, calm in _DRIFTS:
        message = str(facts.get(f"{what}_drift_message") or "")
        if not facts.get(f"{what}_judged"):
            found.append(Condition(type_, "Unknown", "TooEarly", "there is no whole window to compare with yet"))
        elif int(facts.get(f"{what}_drift") or 0):
            found.append(Condition(type_, "True", reason, message))
        else:
            found.append(Condition(type_, "False", "Stable", calm))
    return found


def _accepted() -> Condition:
    return Condition("Accepted", "True", "Valid", "the resource is understood and what it names exists")


def _outcome(type_: str, outcome: Outcome) -> Condition:
    status = {None: "Unknown", True: "True", False: "False"}[outcome.ok]
    return Condition(type_, status, outcome.reason, outcome.message)  # type: ignore[arg-type] # one of the three


def _flow(paused: bool, flowing: bool, resource: MetricStream | AnomalyDetector) -> Condition:
    if paused:
        return Condition("DataFlowing", "False", "Paused", "set spec.paused to false to go on")
    if flowing:
        return Condition("DataFlowing", "True", "ReadingsArrive", "readings arrive")
    if isinstance(resource, MetricStream) and not resource.spec.sources:
        message = "the stream has no source: add one under spec.sources, or a MetricSimulation"
        return Condition("DataFlowing", "False", "NoSource", message)
    if isinstance(resource, AnomalyDetector):
        message = f"no readings arrive: see kubectl describe metricstream {resource.spec.stream}"
        return Condition("DataFlowing", "False", "NoReadings", message)
    return Condition("DataFlowing", "False", "NoReadings", "no readings arrive: see status.sources and the pods' logs")


def _model(told: Mapping[str, Any], *, paused: bool) -> Condition:
    if paused:
        return Condition("ModelReady", "False", "Paused", "what was learned is kept; set spec.paused to false to go on")
    if told["series"] == 0:
        message = "no series seen yet: check spec.select and whether readings arrive"
        return Condition("ModelReady", "False", "NoSeries", message)
    if told["learning"]:
        return Condition("ModelReady", "False", "Learning", told["message"] or "series are being learned")
    return Condition("ModelReady", "True", "Learned", "every series is scored")


def _health(
    seen: Observation, paused: bool, standing: Standing | None, troubled: Sequence[Facts] = ()
) -> list[Condition]:
    """Ready, Paused and Degraded."""
    stuck = seen.stuck()
    troubles = stuck + [f"{t['name']}: {t['message']}" for t in troubled]
    waiting = seen.waiting()
    if standing is not None and standing.topics.ok is not True:
        ready = Condition("Ready", "False", "TopicsNotReady", standing.topics.message or "topics are being made")
    elif standing is not None and standing.store.ok is not True:
        ready = Condition("Ready", "False", "StoreNotReady", standing.store.message or "indices are being made")
    elif waiting:
        why = "; ".join(stuck or seen.reasons()) or "pods are starting; see kubectl describe pod where it takes long"
        ready = Condition("Ready", "False", "PodsNotReady", f"{', '.join(waiting)}: {why}")
    elif paused:
        ready = Condition("Ready", "True", "Paused", "paused as asked for")
    else:
        ready = Condition("Ready", "True", "AsPlanned", "all pods are ready")
    degraded = Condition("Degraded", "False", "AsPlanned", "nothing fails")
    if troubles:
        degraded = Condition("Degraded", "True", "PodsStuck" if stuck else "Failing", "; ".join(troubles))
    return [ready, _paused(paused), degraded]


def _paused(paused: bool) -> Condition:
    if paused:
        return Condition("Paused", "True", "PausedBySpec", "set spec.paused to false to go on exactly where it stopped")
    return Condition("Paused", "False", "NotPaused", "spec.paused is false")


def _source(name: str, kind: str, board: Mapping[str, Facts], stream_name: str) -> dict[str, Any]:
    facts = board.get(f"{stream_name}/{name}", {})
    told: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "readings": int(facts.get("accepted") or 0),
        "rejected": int(facts.get("rejected") or 0),
        "late": int(facts.get("late") or 0),
        "state": str(facts.get("state") or ""),
        "message": str(facts.get("message") or "")[:1_024],
    }
    return told


def _phase(job: Manifest | None, seen: Observation, *, paused: bool) -> str:
    status = (job or {}).get("status") or {}
    held = {c["type"] for c in status.get("conditions") or [] if c.get("status") == "True"}
    if "Complete" in held:
        return "Completed"
    if "Failed" in held:
        return "Failed"
    if paused:
        return "Paused"
    return "Running" if ready_pods(seen.pods) or seen.said or seen.ended_well() else "Waiting"


def _last_word(pods: Sequence[Manifest]) -> dict[str, Any]:
    """The JSON that the process left behind when it ended; the newest one, or nothing."""
    found: list[tuple[str, str]] = []
    for pod in pods:
        for container in (pod.get("status") or {}).get("containerStatuses") or []:
            ended = (container.get("state") or {}).get("terminated") or {}
            if ended.get("message"):
                found.append((ended.get("finishedAt") or "", ended["message"]))
    for _, text in sorted(found, reverse=True):
        try:
            content = json.loads(text)
        except ValueError:  # a failure's last line of log, for people
            continue
        if isinstance(content, dict):
            return content
        if isinstance(content, list):
            return {"evaluation": content}
    return {}


def _evaluation(entry: Facts) -> dict[str, Any]:
    """One detector's verdict in the spelling of the CRD."""
    told: dict[str, Any] = {"detector": entry["detector"]}
    for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1"), ("vusPr", "vus_pr")):
        if entry.get(theirs) is not None:
            told[ours] = round(float(entry[theirs]), 4)
    if entry.get("delay_median_s") is not None:
        told["delay"] = format_duration(round(1000 * float(entry["delay_median_s"])))
    if entry.get("false_alarms_per_day") is not None:
        told["falseAlarmsPerDay"] = round(float(entry["false_alarms_per_day"]), 4)
    for ours, theirs in (("events", "events"), ("detected", "detected"), ("falseAlarms", "false_alarms")):
        if entry.get(theirs) is not None:
            told[ours] = int(entry[theirs])
    return told


def _played(told: Mapping[str, Any]) -> str:
    if "total" in told:
        return f"{told['played']} of {told['total']} readings played"
    return f"{told['played']} readings played"


def _failure(job: Manifest | None, last: Facts) -> str:
    conditions = ((job or {}).get("status") or {}).get("conditions") or []
    why = next((c.get("message", "") for c in conditions if c.get("type") == "Failed"), "")
    return f"{last.get('error') or why}: see kubectl logs job/{(job or {}).get('metadata', {}).get('name', '')}"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
