"""What several processes say is read as one, and the last hour is an hour."""

from __future__ import annotations

import pytest

from tidewarden.status import SECTIONS, STATUS_FIELDS, Figures, ProcessStatus, merge_boards
from tidewarden.telemetry import HourlyCount


def test_two_pods_of_a_detector_are_one_row() -> None:
    """Counts add up, partitions are joined, and the message is that of the pod that learns most."""
    first = {"series": 8, "learning": 0, "ready": 8, "warmup": 120, "message": "ready", "partitions": [0, 2]}
    second = {"series": 4, "learning": 4, "ready": 0, "warmup": 120, "message": "learning 34 of 120", "partitions": [1]}
    merged = merge_boards([{"detectors": {"watch": first}}, {"detectors": {"watch": second}}])
    assert merged["detectors"]["watch"] == {
        "series": 12, "learning": 4, "ready": 8, "warmup": 120, "message": "learning 34 of 120",
        "partitions": [0, 1, 2],
    }  # fmt: skip


def test_the_most_urgent_state_wins_with_its_message() -> None:
    """A pod that has failed is not hidden by one that runs."""
    boards = [
        {"sources": {"s/push": {"state": "running", "message": "", "accepted": 5, "rejected_by_reason": {"nan": 1}}}},
        {
            "sources": {
                "s/push": {"state": "failed", "message": "gone", "accepted": 2, "rejected_by_reason": {"nan": 2}}
            }
        },
    ]
    facts = merge_boards(boards)["sources"]["s/push"]
    assert facts == {"state": "failed", "message": "gone", "accepted": 7, "rejected_by_reason": {"nan": 3}}


def test_figures_add_up() -> None:
    """Counters and histograms of all pods together are the namespace's."""
    one = Figures(readings=3, lag={"a": 1}, latency={"0.1": 2.0, "+Inf": 3.0})
    other = Figures(readings=4, lag={"a": 2, "b": 5}, latency={"0.1": 1.0, "+Inf": 1.0})
    both = one.plus(other)
    assert (both.readings, both.lag, both.latency) == (7, {"a": 3, "b": 5}, {"0.1": 3.0, "+Inf": 4.0})


def test_every_field_of_the_document_is_described() -> None:
    """The list that the reference is made of names exactly the fields of the document."""
    assert set(STATUS_FIELDS) == set(ProcessStatus.__struct_fields__)
    assert all(fact.text for _, facts in SECTIONS.values() for fact in facts.values())


@pytest.mark.parametrize(("after_s", "total"), [(0.0, 5), (3_479.0, 5), (3_540.0, 2), (3_600.0, 0), (90_000.0, 0)])
def test_the_last_hour_forgets_by_the_minute(after_s: float, total: int) -> None:
    """What was counted an hour ago is gone, also after a long silence."""
    count = HourlyCount()
    count.add(3, 600.0)
    count.add(2, 660.0)
    assert count.total(660.0 + after_s) == total
