"""Conditions: aspects of a resource, as Kubernetes' own resources have them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

ConditionStatus = Literal["True", "False", "Unknown"]
Conditions = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Condition:
    """One aspect: whether it holds, a stable CamelCase reason, and a sentence that says what to do next."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""

    @classmethod
    def holds(cls, type_: str, holds: bool, reason: str, message: str = "") -> Condition:
        """A condition of a truth value."""
        return cls(type_, "True" if holds else "False", reason, message)


@dataclass(frozen=True, slots=True)
class Transition:
    """A condition whose status or reason is another than before."""

    before: str | None  # "False/KafkaUnavailable"; None: there was none
    now: Condition


def merged(found: Sequence[Condition], before: Conditions, generation: int, now: str) -> Conditions:
    """The conditions to write: a transition time changes only with the status.

    Args:
        found: what holds now.
        before: what the resource says so far.
        generation: of the spec that was looked at.
        now: RFC 3339 time.
    """
    known = {condition.get("type"): condition for condition in before}
    return [
        {
            "type": condition.type,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message[:1_024],
            "observedGeneration": generation,
            "lastTransitionTime": _since(known.get(condition.type), condition, now),
        }
        for condition in found
    ]


def transitions(found: Sequence[Condition], before: Conditions) -> list[Transition]:
    """Which conditions changed their status or reason."""
    known = {condition.get("type"): f"{condition.get('status')}/{condition.get('reason')}" for condition in before}
    return [
        Transition(known.get(condition.type), condition)
        for condition in found
        if known.get(condition.type) != f"{condition.status}/{condition.reason}"
    ]


def _since(known: dict[str, Any] | None, condition: Condition, now: str) -> str:
    if known is not None and known.get("status") == condition.status and known.get("lastTransitionTime"):
        return str(known["lastTransitionTime"])
    return now
