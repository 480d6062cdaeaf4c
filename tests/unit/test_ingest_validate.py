"""Validation: each reason, the memory behind it, and its independence of how readings are cut."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarden.clock import ManualClock
from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.sources import Batch, Refused
from tidewarden_services.ingest import kernels
from tidewarden_services.ingest.reasons import Code
from tidewarden_services.ingest.validate import Rejections, Validator

NOW = 1_700_000_000_000
MINUTE = 60_000


def stream(**spec: object) -> MetricStream:
    given_spec = {
        "tenants": ["shop"],
        "interval": "1m",
        "metrics": [{"name": "error_rate", "unit": "percent"}, {"name": "jobs", "unit": "count"}],
        **spec,
    }
    return MetricStream.model_validate({"kind": "MetricStream", "metadata": {"name": "s"}, "spec": given_spec})


def frame(table: SeriesTable, *rows: tuple[str, int, float]) -> Frame:
    """Rows of (metric or tenant/metric, ms after NOW, value)."""
    keys = []
    for name, _, _ in rows:
        tenant, _, metric = name.rpartition("/")
        keys.append(SeriesKey(tenant or "shop", "c", "n", metric))
    return Frame(
        table,
        table.ids_of(keys),
        np.array([NOW + at for _, at, _ in rows], np.int64),
        np.array([value for _, _, value in rows], np.float64),
    )


def validator(table: SeriesTable, **options: object) -> Validator:
    return Validator(stream(), table, ManualClock(NOW), **options)


def test_the_kernel_and_the_enum_number_the_reasons_alike() -> None:
    for code in Code:
        assert getattr(kernels, code.name) == code


@pytest.mark.parametrize(
    ("rows", "code", "says"),
    [
        ([("other/latency_ms", 0, 1.0)], Code.UNKNOWN_TENANT, "spec.tenants"),
        ([("latency_ms", 0, np.inf)], Code.NOT_FINITE, "send null"),
        ([("latency_ms", 0, -np.inf)], Code.NOT_FINITE, "-inf"),
        ([("error_rate", 0, 100.5)], Code.OUT_OF_BOUNDS, "0 to 100"),
        ([("jobs", 0, -1.0)], Code.OUT_OF_BOUNDS, "at least 0"),
        ([("latency_ms", 300_001, 1.0)], Code.FUTURE, "clock"),
        ([("latency_ms", 0, 1.0), ("latency_ms", 0, 1.0)], Code.DUPLICATE, "first one is kept"),
        ([("latency_ms", 0, 1.0), ("latency_ms", -MINUTE - 1, 1.0)], Code.TOO_LATE, "spec.lateness"),
        ([("latency_ms", 0, 1.0), ("latency_ms", -MINUTE, 1.0)], Code.LATE, None),
        ([("latency_ms", 0, np.nan)], Code.ACCEPTED, None),
        ([("error_rate", 0, np.nan)], Code.ACCEPTED, None),
        ([("error_rate", 0, 100.0)], Code.ACCEPTED, None),
        ([("latency_ms", 300_000, 1.0)], Code.ACCEPTED, None),
        ([("latency_ms", -10 * 365 * 86_400_000, 1.0)], Code.ACCEPTED, None),
    ],
)
def test_each_verdict_has_its_reason_and_a_remedy(rows: list, code: Code, says: str | None) -> None:
    table = SeriesTable()
    checker = validator(table)
    readings = frame(table, *rows)
    verdict = checker.check(readings)
    assert Code(int(verdict.codes[-1])) == code
    assert len(verdict.accepted) == len(rows) - (says is not None)
    if says is not None:
        assert says in checker.detail(readings, len(rows) - 1, code)


def test_a_simulation_may_run_ahead_of_the_clock() -> None:
    table = SeriesTable()
    verdict = validator(table, check_future=False).check(frame(table, ("m", 10**12, 1.0)))
    assert len(verdict.accepted) == 1


def test_a_refused_reading_leaves_no_trace_in_the_memory() -> None:
    table = SeriesTable()
    checker = validator(table)
    checker.check(frame(table, ("error_rate", 0, 1.0), ("error_rate", 5 * MINUTE, 1e9)))
    verdict = checker.check(frame(table, ("error_rate", 1 * MINUTE, 1.0), ("error_rate", 5 * MINUTE, 1.0)))
    assert verdict.codes.tolist() == [Code.ACCEPTED, Code.ACCEPTED]


def test_gaps_are_counted_and_not_refused() -> None:
    table = SeriesTable()
    verdict = validator(table).check(frame(table, ("m", -11 * MINUTE, 1.0), ("m", -6 * MINUTE, 1.0), ("m", 0, 1.0)))
    assert (verdict.gaps, len(verdict.accepted)) == (1, 3)  # exactly maxGap intervals are no gap yet


def test_late_readings_are_told_from_duplicates_in_any_order() -> None:
    table = SeriesTable()
    checker = Validator(stream(lateness="10m"), table, ManualClock(NOW))
    at = [0, -3, -1, -3, -5, -1, -4, 0, -4]
    verdict = checker.check(frame(table, *[("m", minute * MINUTE, 1.0) for minute in at]))
    late, double = Code.LATE, Code.DUPLICATE
    assert verdict.codes.tolist() == [0, late, late, double, late, double, late, double, double]


def test_what_is_no_longer_remembered_is_too_late_rather_than_accepted_twice() -> None:
    table = SeriesTable()
    checker = validator(table)  # remembers 16 readings; here they come every second instead of every minute
    checker.check(frame(table, *[("m", second * 1000, 1.0) for second in range(0, 60, 2)]))
    verdict = checker.check(frame(table, ("m", 2000, 1.0), ("m", 3000, 1.0), ("m", 57_000, 1.0), ("m", 56_000, 1.0)))
    assert verdict.codes.tolist() == [Code.TOO_LATE, Code.TOO_LATE, Code.LATE, Code.DUPLICATE]


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["error_rate", "latency_ms", "other/x", "jobs"]),
        st.integers(-8, 8).map(lambda step: step * 20_000),
        st.sampled_from([1.0, 50.0, 101.0, -1.0, float("inf"), float("nan")]),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.lists(st.integers(0, 60), max_size=6), st.integers(0, 6))
def test_any_cut_and_any_restart_give_the_same_verdicts(rows: list, cuts: list[int], restart_at: int) -> None:
    """Chunking, a snapshot carried to a process with other series ids, and replaying what passed change nothing."""
    whole_table = SeriesTable()
    expected = validator(whole_table).check(frame(whole_table, *rows)).codes.tolist()
    assert expected == _oracle(rows)

    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    table = SeriesTable()
    checker = validator(table)
    replayed: list[Frame] = []
    codes: list[int] = []
    for number, (begin, end) in enumerate(itertools.pairwise(edges)):
        if number == restart_at:
            state = checker.snapshot()
            table = SeriesTable([SeriesKey("z", "z", "z", "z")])
            checker = validator(table)
            checker.restore(state)
        verdict = checker.check(frame(table, *rows[begin:end]))
        replayed.append(verdict.accepted)
        codes += verdict.codes.tolist()
    assert codes == expected

    if restart_at >= len(edges) - 1:  # one table throughout: a fresh validator can be fast-forwarded
        advanced = validator(table)
        for accepted in replayed:
            advanced.advance(accepted)
        assert advanced.snapshot() == checker.snapshot()


def _oracle(rows: list[tuple[str, int, float]]) -> list[int]:
    """The slow, obvious version: every accepted timestamp of a series in a list."""
    seen: dict[str, list[int]] = {}
    forgotten: dict[str, int] = {}
    bounds = {"error_rate": (0.0, 100.0), "jobs": (0.0, float("inf"))}
    codes = []
    for name, at, value in rows:
        times = seen.setdefault(name, [])
        low, high = bounds.get(name, (float("-inf"), float("inf")))
        if name.startswith("other/"):
            code = Code.UNKNOWN_TENANT
        elif value in (float("inf"), float("-inf")):
            code = Code.NOT_FINITE
        elif value < low or value > high:
            code = Code.OUT_OF_BOUNDS
        elif at in times:
            code = Code.DUPLICATE
        elif times and (at < max(times) - MINUTE or at <= forgotten.get(name, -(10**15))):
            code = Code.TOO_LATE
        else:
            code = Code.LATE if times and at < max(times) else Code.ACCEPTED
            times.append(at)
            if len(times) > 16:
                forgotten[name] = min(times)
                times.remove(min(times))
        codes.append(int(code))
    return codes


def test_a_smaller_memory_after_a_change_of_lateness_keeps_the_newest() -> None:
    table = SeriesTable()
    wide = Validator(stream(lateness="30m"), table, ManualClock(NOW))
    wide.check(frame(table, *[("m", minute * MINUTE, 1.0) for minute in range(-40, 1)]))
    narrow = validator(table)
    narrow.restore(wide.snapshot())
    verdict = narrow.check(frame(table, ("m", 0, 1.0), ("m", -MINUTE, 1.0), ("m", MINUTE, 1.0)))
    assert verdict.codes.tolist() == [Code.DUPLICATE, Code.DUPLICATE, Code.ACCEPTED]


@pytest.mark.parametrize("state", [b"", b"nonsense", b"\x96\x09\x10\x90\xc4\x00\xc4\x00\xc4\x00"])
def test_a_state_that_does_not_fit_is_refused_with_a_remedy(state: bytes) -> None:
    with pytest.raises(ValueError, match=r"remove it|upgrade"):
        validator(SeriesTable()).restore(state)


def test_rejections_carry_the_reading_and_an_id_that_a_replay_gives_again() -> None:
    table = SeriesTable()
    refused = Refused("malformed", "no number", "f.csv line 3", raw="x,y", fields={"tenant": "shop", "value": 1.5})
    readings = frame(table, ("m", 0, 1.0), ("other/m", 0, float("inf")))
    batch = Batch(readings, [refused], position="7", origins=["line 1", "line 2"])

    def once(received_at: int) -> list:
        checker = validator(table)
        return Rejections("s", "src").of(batch, checker.check(readings), checker, "7", received_at)

    first, again = once(NOW), once(NOW + 5)
    assert [item.id for item in first] == [item.id for item in again]
    assert [(item.reason, item.origin, item.tenant) for item in first] == [
        ("malformed", "f.csv line 3", "shop"),
        ("unknown_tenant", "line 2", "other"),
    ]
    assert (first[0].raw, first[0].value, first[1].value, first[1].timestamp) == ("x,y", 1.5, None, NOW)


def test_ten_thousand_readings_take_well_under_a_millisecond() -> None:
    table = SeriesTable(SeriesKey("shop", "c", f"n{i // 4}", f"m{i % 4}") for i in range(1000))
    checker = validator(table)
    series = np.tile(np.arange(1000, dtype=np.int32), 10)
    took = []
    for chunk in range(30):
        at = NOW + (np.repeat(np.arange(10), 1000) + 10 * chunk - 400) * MINUTE
        readings = Frame(table, series, at, np.ones(10_000))
        began = time.perf_counter()
        verdict = checker.check(readings)
        took.append(time.perf_counter() - began)
        assert len(verdict.accepted) == 10_000
    assert min(took) < 0.001
