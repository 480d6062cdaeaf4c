"""What the contests of a detector's instances say together on the status board and as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tidewarden.scoring.candidates import Contest
from tidewarden.scoring.comparison import CANDIDATE, CHAMPION
from tidewarden.telemetry import Telemetry


def post_candidate(telemetry: Telemetry, stream: str, detector: str, contests: Sequence[Contest]) -> None:
    """Tell how champion and candidate compare, over all instances in this process; nothing where there is none."""
    if not contests:
        return
    reports = [contest.report() for contest in contests]
    facts: Counter[str] = Counter()
    for report in reports:
        counted = report.comparison
        facts.update(
            series=report.series, readings=counted.readings, settled=sum(counted.matched) + sum(counted.alone),
            agreed=sum(counted.matched),
        )  # fmt: skip
        for side, name in ((CHAMPION, "champion"), (CANDIDATE, "candidate")):
            facts[f"{name}_alarms"] += counted.alarms[side]
            facts[f"{name}_only"] += counted.alone[side]
            facts[f"{name}_found"] += counted.found(side)
            facts[f"{name}_false"] += counted.false(side)
    for label in ("champion", "candidate"):
        telemetry.candidate_alarms.labels(stream, detector, label).set(facts[f"{label}_alarms"])
        telemetry.candidate_alone.labels(stream, detector, label).set(facts[f"{label}_only"])
    said: dict[str, Any] = {name: int(count) for name, count in facts.items()}
    verdicts = Counter(report.mode for report in reports)
    leading = max(reports, key=lambda r: (r.mode == "rolledBack", r.comparison.readings))
    telemetry.board.post(
        "candidates", detector, stream=stream, version=leading.version, mode=leading.mode, message=leading.message,
        days=sum(report.days for report in reports), verdicts=dict(verdicts), **said,
    )  # fmt: skip
