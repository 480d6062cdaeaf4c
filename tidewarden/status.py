"""What a process says of itself at ``/status``, and how what several say is read as one.

`ProcessStatus` is the document. Its ``board`` has sections of named components with the fields of `SECTIONS`:
the one list from which the reference page is made and by which several pods of one detector, or several
partitions in one pod, become one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

Merge = Literal["first", "sum", "sums", "most", "union", "worst"]
Board = dict[str, dict[str, dict[str, Any]]]

_STATES_BY_URGENCY = ("failed", "waiting", "starting", "learning", "running", "stopped", "finished", "paused")


class Fact(NamedTuple):
    """A field of a component on the board: its type, what it means, how several parts' become one."""

    type: str
    text: str
    merge: Merge = "first"


SECTIONS: dict[str, tuple[str, dict[str, Fact]]] = {
    "sources": (
        "Each source of a stream, as `stream/source`; simulations are sources, too.",
        {
            "stream": Fact("text", "MetricStream."),
            "source": Fact("text", "Name of the source or simulation."),
            "kind": Fact("text", "http, kafka, prometheus, file or simulation."),
            "state": Fact("text", "starting, running, paused, finished, stopped or failed.", "worst"),
            "message": Fact("text", "What keeps it from running, and the remedy; empty while all is well."),
            "accepted": Fact("integer", "Readings accepted since the source's beginning, restarts included.", "sum"),
            "rejected": Fact("integer", "Readings refused since then.", "sum"),
            "rejected_by_reason": Fact("mapping", "The same by reason.", "sums"),
            "late": Fact("integer", "Readings older than the newest one of their series.", "sum"),
            "gaps": Fact("integer", "Readings that came after a gap.", "sum"),
            "success_rate": Fact("number", "Accepted of all, 0 to 1."),
            "newest_ms": Fact(
                "integer", "Newest accepted timestamp, ms since the epoch; null before the first.", "most"
            ),
            "lag_seconds": Fact("number", "Now minus that timestamp; null before the first."),
        },
    ),
    "simulations": (
        "Each MetricSimulation.",
        {
            "stream": Fact("text", "MetricStream."),
            "state": Fact("text", "running, evaluating, finished or failed.", "worst"),
            "message": Fact("text", "What is being waited for; empty while it plays."),
            "played": Fact("integer", "Readings played so far.", "most"),
            "total": Fact("integer", "Readings in all; null where it is endless."),
            "evaluation": Fact("list", "One entry for each detector: precision, recall, f1, vus_pr, delays, counts."),
        },
    ),
    "detectors": (
        "Each AnomalyDetector.",
        {
            "stream": Fact("text", "MetricStream."),
            "model": Fact("text", "Kind of model."),
            "began_with": Fact("list", "Registered versions that it began with; none: it began with nothing.", "union"),
            "series": Fact("integer", "Series seen.", "sum"),
            "learning": Fact("integer", "Of these, how many still learn.", "sum"),
            "ready": Fact("integer", "Of these, how many are scored.", "sum"),
            "warmup": Fact("integer", "Readings that a series is learned from before it is scored.", "most"),
            "message": Fact("text", "How far learning is, for people."),
            "anomalies_last_hour": Fact(
                "integer",
                "Anomalies opened in the last hour on the clock, by this process; a new process begins at 0.",
                "sum",
            ),
            "state_bytes": Fact("integer", "Memory of the models.", "sum"),
            "threshold": Fact("number", "Configured threshold; null where there is a budget."),
            "budget_per_day": Fact("number", "Configured budget of false alarms; null where there is a threshold."),
            "data_judged": Fact("integer", "Series whose values could be compared with their reference window.", "sum"),
            "data_drift": Fact("integer", "Of these, how many have drifted.", "sum"),
            "data_drift_message": Fact("text", "Which, how far, and what to do; empty while none has."),
            "model_judged": Fact("integer", "Instances that have scored a whole window; 0: too early to say.", "sum"),
            "model_drift": Fact("integer", "Of these, how many are off their calibration or over their budget.", "sum"),
            "model_drift_message": Fact("text", "How far, and what to do; empty while none is."),
            "source_judged": Fact("integer", "Series whose coming and going is watched.", "sum"),
            "source_drift": Fact("integer", "Of these, how many vanished, appeared or changed their pace.", "sum"),
            "source_drift_message": Fact("text", "Which, and what to do; empty while none did."),
            "partitions": Fact("list", "Partitions of the readings that this process has.", "union"),
            "lag_records": Fact("integer", "Records of readings not yet scored.", "sum"),
        },
    ),
    "candidates": (
        "The candidate of each AnomalyDetector that has one, by the detector's name.",
        {
            "stream": Fact("text", "MetricStream."),
            "version": Fact("text", "Kind and version of the candidate."),
            "mode": Fact("text", "shadow, canary, promoted or rolledBack: the leading partition's."),
            "verdicts": Fact("mapping", "The same → how many partitions, each of which decides by itself.", "sums"),
            "message": Fact("text", "Why, and what is still wanted."),
            "series": Fact("integer", "Series that it answers for.", "sum"),
            "readings": Fact("integer", "Readings that both scored.", "sum"),
            "days": Fact("number", "The same as days of one series.", "sum"),
            "settled": Fact("integer", "Closed alarms of both.", "sum"),
            "agreed": Fact("integer", "Of these, raised by the other, too.", "sum"),
            "champion_alarms": Fact("integer", "Alarms of the champion.", "sum"),
            "candidate_alarms": Fact("integer", "Alarms of the candidate.", "sum"),
            "champion_only": Fact("integer", "Closed alarms of the champion alone.", "sum"),
            "candidate_only": Fact("integer", "Closed alarms of the candidate alone.", "sum"),
            "champion_found": Fact("integer", "Marked right, and the champion had raised them.", "sum"),
            "candidate_found": Fact("integer", "Marked right, and the candidate had raised them.", "sum"),
            "champion_false": Fact("integer", "Marked wrong, and the champion had raised them.", "sum"),
            "candidate_false": Fact("integer", "Marked wrong, and the candidate had raised them.", "sum"),
        },
    ),
    "policies": (
        "Each AlertPolicy.",
        {
            "stream": Fact("text", "MetricStream."),
            "firing": Fact("integer", "Alerts that fire.", "sum"),
            "pending": Fact("integer", "Alerts that wait before they fire.", "sum"),
        },
    ),
    "receivers": (
        "Each receiver of a policy, as `policy/receiver`.",
        {
            "waiting": Fact("integer", "Alerts still to be delivered.", "sum"),
            "message": Fact("text", "What the receiver last complained of; empty if nothing."),
            "sent": Fact("integer", "Deliveries since this process started.", "sum"),
            "retried": Fact("integer", "Attempts that failed and were tried again.", "sum"),
            "refused": Fact("integer", "Alerts that the receiver refused for good.", "sum"),
        },
    ),
    "archives": (
        "The archive of each stream.",
        {
            "state": Fact("text", "starting, running or waiting (the store is away; nothing is lost).", "worst"),
            "message": Fact("text", "What the store last complained of; empty if nothing."),
            "stored": Fact("mapping", "Rows written since this process started, by kind.", "sums"),
            "lag_records": Fact("integer", "Records not yet written.", "sum"),
        },
    ),
    "services": (
        "What the runtimes count of every service.",
        {
            "state": Fact("text", "running unless the service says otherwise.", "worst"),
            "lag_records": Fact("integer", "Records not yet read.", "sum"),
            "handled": Fact("integer", "Records dealt with since this process started.", "sum"),
            "message": Fact("text", "What a service that does not run waits for; archives and mergers only."),
            "held_records": Fact("integer", "Records that wait for others to be merged with; mergers only.", "sum"),
            "held_rows": Fact("integer", "Rows of these records.", "sum"),
            "waiting_for": Fact("list", "Instances of the detector that hold them up.", "union"),
        },
    ),
}


class RecentError(msgspec.Struct, frozen=True):
    """A warning or an error of the log."""

    at: int  # ms since the epoch
    level: str
    service: str
    text: str


class Figures(msgspec.Struct):
    """Counts since the process started, which the API of a namespace adds up over all its pods."""

    readings: int = 0
    scored: int = 0
    late: int = 0
    rejected_by_reason: dict[str, int] = {}
    lag: dict[str, int] = {}  # service → records not yet read
    handled: dict[str, int] = {}  # service → records
    latency: dict[str, float] = {}  # upper bound in seconds ("+Inf" last) → readings' records up to there

    def plus(self, other: Figures) -> Figures:
        """Both together."""
        return Figures(
            self.readings + other.readings,
            self.scored + other.scored,
            self.late + other.late,
            _added([self.rejected_by_reason, other.rejected_by_reason]),
            _added([self.lag, other.lag]),
            _added([self.handled, other.handled]),
            _added([self.latency, other.latency]),
        )


class ProcessStatus(msgspec.Struct, kw_only=True):
    """The document at ``/status``."""

    role: str
    name: str
    namespace: str
    stream: str | None
    member: str | None
    version: str
    started_at: int
    at: int
    state: Literal["starting", "running", "stopping", "finished", "failed"]
    ready: bool
    waiting_for: list[str]
    lag_records: int
    partitions: list[int]
    errors: list[RecentError]
    board: Board
    figures: Figures


STATUS_FIELDS: dict[str, tuple[str, str]] = {
    "role": ("text", "ingest, simulate, detect, rollup, alert, archive or api."),
    "name": (
        "text",
        "Of the resource: detector, policy, simulation; of the source for ingest; of the stream for archive.",
    ),
    "namespace": ("text", "Namespace of the resources."),
    "stream": ("text", "MetricStream; null for the API, which serves all of a namespace."),
    "member": ("text", "Name of the pod in the consumer group; detect only."),
    "version": ("text", "Of Tidewarden."),
    "started_at": ("integer", "When the process started, ms since the epoch."),
    "at": ("integer", "When this was said, ms since the epoch."),
    "state": ("text", "starting, running, stopping, finished or failed."),
    "ready": ("true or false", "What `/readyz` says."),
    "waiting_for": ("list", "What readiness is waiting for; empty when ready."),
    "lag_records": ("integer", "Records that its services have not yet read, together."),
    "partitions": ("list", "Partitions that are assigned to it; detect only."),
    "errors": ("list", "The last ten warnings and errors of the log: at, level, service, text."),
    "board": ("mapping", "Section → name → facts, see below. A section is there once something was posted to it."),
    "figures": (
        "mapping",
        "Counts since the process started, for adding up: readings, scored, late, rejected_by_reason, lag and handled "
        "by service, latency (cumulative, by upper bound in seconds).",
    ),
}


def merge_facts(section: str, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several parts say of one name as one dict; unknown fields are those of the first that has them."""
    if len(parts) == 1:
        return parts[0]
    facts = SECTIONS[section][1] if section in SECTIONS else {}
    # A message belongs to whoever has most to do: the part that learns most, or that fails.
    leading = sorted(parts, key=lambda part: (_urgency(part), -int(part.get("learning") or 0)))
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for part in leading for name in part):
        values = [part[name] for part in leading if name in part]
        merged[name] = _merged(facts[name].merge if name in facts else "first", values)
    return merged


def merge_boards(boards: Iterable[Mapping[str, Mapping[str, dict[str, Any]]]]) -> Board:
    """The boards of several processes as one."""
    parts: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for board in boards:
        for section, names in board.items():
            for name, facts in names.items():
                parts.setdefault(section, {}).setdefault(name, []).append(facts)
    return {
        section: {name: merge_facts(section, facts) for name, facts in names.items()}
        for section, names in parts.items()
    }


def _merged(merge: Merge, values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    match merge:
        case "sum":
            return sum(known)
        case "sums":
            return _added(known)
        case "most":
            return max(known)
        case "union":
            return sorted({item for value in known for item in value})
        case _:  # first and worst: the parts come in the order of urgency
            return next((value for value in known if value != ""), known[0])


def _urgency(part: Mapping[str, Any]) -> int:
    state = part.get("state")
    return _STATES_BY_URGENCY.index(state) if state in _STATES_BY_URGENCY else len(_STATES_BY_URGENCY)


def _added(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total
