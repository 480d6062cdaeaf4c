"""Alerts: grouped, deduplicated, pending → firing → resolved, the same however the input is cut."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarden.alerting.engine import AlertEngine
from tidewarden.alerting.lifecycle import MAX_IDS, MAX_OPEN, MAX_SERIES
from tidewarden.events import Alert, Anomaly, AnomalyBatch, severity_of
from tidewarden.resources import AlertPolicy

MINUTE = 60_000
T0 = 1_700_006_400_000  # Wednesday, 15 November 2023, 00:00 UTC


def _policy(**spec: Any) -> AlertPolicy:
    return AlertPolicy.model_validate({"metadata": {"name": "few"}, "spec": {"stream": "shop", **spec}})


def _engine(**spec: Any) -> AlertEngine:
    return AlertEngine(_policy(**spec), "shop")


def _anomaly(
    name: str, minute: float, end: float | None = None, *, node: str = "n1", at: float | None = None, **more: Any
) -> Anomaly:
    """An anomaly that begins at ``minute``; with ``end`` it is the closing revision."""
    last = minute if end is None else end
    fields: dict[str, Any] = {
        "id": name, "revision": 1 if end is None else 2, "state": "open" if end is None else "closed",
        "stream": "shop", "detector": "d", "model_version": "auto/1",
        "tenant": "shop", "cluster": "eu", "node": node, "metric": "latency_ms",
        "onset": T0 + int(minute * MINUTE), "end": T0 + int(last * MINUTE), "peak_at": T0 + int(minute * MINUTE),
        "peak_score": 0.8, "p_value": 1e-5, "value": 412.0, "expected": 100.0, "lower": 90.0, "upper": 110.0,
        "readings": 1, "kind": "spike", "direction": "up", "severity": "warning", "node_share": 1.0,
        "explanation": f"latency_ms 412 on {node}", "updated_at": T0 + int((last if at is None else at) * MINUTE),
    }  # fmt: skip
    return Anomaly(**{**fields, **more})


def _batch(*anomalies: Anomaly, until: float, detector: str = "d", tenant: str = "shop") -> AnomalyBatch:
    return AnomalyBatch(
        detector=detector, anomalies=list(anomalies), watermarks={tenant: T0 + int(until * MINUTE)}
    )  # fmt: skip


def _minute(at: int | None) -> float | None:
    return None if at is None else (at - T0) / MINUTE


def _told(alerts: list[Alert]) -> list[tuple[str, float | None, float | None]]:
    return [(alert.state, _minute(alert.fired_at), _minute(alert.resolved_at)) for alert in alerts]


def test_an_anomaly_fires_at_once_and_resolves_after_calm_counted_from_its_end() -> None:
    engine = _engine(resolveAfter="5m")
    assert _told(engine.observe(_batch(_anomaly("a", 10), until=11))) == [("firing", 10, None)]
    assert engine.observe(_batch(_anomaly("a", 10, 12, at=16), until=16)) == []
    alerts = engine.observe(_batch(until=40))
    assert _told(alerts) == [("resolved", 10, 17)]
    assert alerts[0].revision == 2


def test_anomalies_of_one_group_are_one_alert_and_of_two_groups_two() -> None:
    engine = _engine(groupBy=["cluster", "metric"])
    alerts = engine.observe(
        _batch(
            _anomaly("a", 10), _anomaly("b", 11, node="n2"), _anomaly("c", 12, node="n3", cluster="us"), until=12
        )
    )  # fmt: skip
    assert len({alert.id for alert in alerts}) == 2
    assert alerts[1].anomaly_ids == ["a", "b"]
    assert alerts[1].group == {"cluster": "eu", "metric": "latency_ms"}


def test_tenants_never_share_an_alert() -> None:
    engine = _engine(groupBy=["metric"])
    alerts = engine.observe(_batch(_anomaly("a", 10), _anomaly("b", 10, tenant="bank"), until=11))
    assert [alert.tenant for alert in alerts] == ["shop", "bank"]
    assert len({alert.id for alert in alerts}) == 2


def test_what_is_below_the_least_severity_makes_no_alert_until_it_rises() -> None:
    engine = _engine(minSeverity="critical")
    assert engine.observe(_batch(_anomaly("a", 10), until=11)) == []
    risen = _anomaly("a", 10, at=13, revision=2, peak_score=0.95, severity="critical")
    assert _told(engine.observe(_batch(risen, until=14))) == [("firing", 13, None)]


def test_a_revision_that_comes_twice_changes_nothing() -> None:
    engine = _engine()
    first = engine.observe(_batch(_anomaly("a", 10), until=11))
    assert engine.observe(_batch(_anomaly("a", 10), until=11)) == []
    assert first[0].anomaly_count == 1


def test_with_wait_an_alert_is_pending_until_the_anomaly_has_lasted() -> None:
    engine = _engine(wait="5m")
    assert _told(engine.observe(_batch(_anomaly("a", 10), until=12))) == [("pending", None, None)]
    assert engine.observe(_batch(until=14)) == []
    assert _told(engine.observe(_batch(until=30))) == [("firing", 15, None)]


def test_what_ends_within_wait_never_fires() -> None:
    engine = _engine(wait="5m", resolveAfter="5m")
    engine.observe(_batch(_anomaly("a", 10), until=11))
    alerts = engine.observe(_batch(_anomaly("a", 10, 12, at=13), until=60))
    assert _told(alerts) == [("resolved", None, 17)]


def test_several_short_anomalies_do_not_add_up_to_a_long_one() -> None:
    engine = _engine(wait="5m", resolveAfter="5m")
    alerts = engine.observe(
        _batch(
            _anomaly("a", 10), _anomaly("a", 10, 12, at=13), _anomaly("b", 14), _anomaly("b", 14, 16, at=17), until=60
        )
    )  # fmt: skip
    assert _told(alerts)[-1] == ("resolved", None, 21)


def test_an_alert_lasts_while_any_of_its_anomalies_is_open() -> None:
    engine = _engine(resolveAfter="5m")
    engine.observe(_batch(_anomaly("a", 10), _anomaly("b", 11, node="n2"), _anomaly("a", 10, 12, at=13), until=90))
    assert engine.active() == 1
    assert _told(engine.observe(_batch(_anomaly("b", 11, 95, node="n2", at=97), until=120))) == [("resolved", 10, 100)]


def test_a_new_anomaly_within_the_calm_time_goes_on_with_the_same_alert() -> None:
    engine = _engine(resolveAfter="10m")
    one = engine.observe(_batch(_anomaly("a", 10), _anomaly("a", 10, 12, at=13), until=15))
    two = engine.observe(_batch(_anomaly("b", 18), _anomaly("b", 18, 19, at=20), until=60))
    assert {alert.id for alert in one + two} == {one[0].id}
    assert _told(two)[-1] == ("resolved", 10, 29)


def test_an_anomaly_found_late_reopens_the_alert_that_had_resolved_too_early() -> None:
    engine = _engine(resolveAfter="5m")
    one = engine.observe(_batch(_anomaly("a", 10), _anomaly("a", 10, 12, at=13), until=20))
    two = engine.observe(_batch(_anomaly("b", 16, at=21), until=22))
    assert [(alert.id, alert.state) for alert in two] == [(one[0].id, "firing")]
    assert not two[0].flapping


def test_flapping_alerts_say_so_and_from_the_fourth_on_need_twice_the_calm() -> None:
    engine = _engine(resolveAfter="5m", repeatAfter="4h")
    alerts = []
    for n in range(5):
        at = 10 + 20 * n
        alerts += engine.observe(
            _batch(_anomaly(f"a{n}", at), _anomaly(f"a{n}", at, at + 1, at=at + 2), until=at + 15)
        )  # fmt: skip
    firing = [alert for alert in alerts if alert.state == "firing"]
    resolved = [alert for alert in alerts if alert.state == "resolved"]
    assert [alert.flapping for alert in firing] == [False, True, True, True, True]
    calm = [_minute(alert.resolved_at - alert.started_at + T0) for alert in resolved if alert.resolved_at]
    assert calm == [6, 6, 6, 11, 11]
    assert len({alert.id for alert in firing}) == 5


def test_after_repeat_after_a_group_starts_afresh_and_is_forgotten() -> None:
    engine = _engine(resolveAfter="5m", repeatAfter="1h")
    engine.observe(_batch(_anomaly("a", 10), _anomaly("a", 10, 11, at=12), until=20))
    full = len(engine.snapshot())
    engine.observe(_batch(until=90))
    assert len(engine.snapshot()) < full / 2
    assert not engine.observe(_batch(_anomaly("b", 91), until=92))[0].flapping


def test_a_growing_alert_is_published_at_doublings_and_when_severity_rises() -> None:
    engine = _engine(groupBy=["tenant"])
    alerts = []
    for n in range(100):
        alerts += engine.observe(_batch(_anomaly(f"a{n}", 10 + n / 60, node=f"n{n}"), until=10 + n / 60))
    assert [alert.anomaly_count for alert in alerts] == [1, 2, 4, 8, 16, 32, 64]
    worst = _anomaly("worst", 12, node="n7", peak_score=1.0, severity="critical")
    more = engine.observe(_batch(worst, until=12))
    assert [(alert.severity, alert.anomaly_count) for alert in more] == [("critical", 101)]
    assert more[0].series[0] == "shop/eu/n7/latency_ms"


def test_memory_of_an_alert_is_bounded_and_it_still_resolves() -> None:
    engine = _engine(groupBy=["tenant"], resolveAfter="5m")
    crowd = 2 * MAX_OPEN
    opened = [_anomaly(f"a{n}", 10, node=f"n{n}") for n in range(crowd)]
    alerts = engine.observe(_batch(*opened, until=11))
    assert alerts[-1].anomaly_count == 1024
    assert len(alerts[-1].anomaly_ids) == MAX_IDS
    assert len(alerts[-1].series) == MAX_SERIES
    assert len(engine.snapshot()) < 150_000
    closed = [_anomaly(f"a{n}", 10, 20, node=f"n{n}", at=22) for n in range(crowd)]
    assert _told(engine.observe(_batch(*closed, until=60)))[-1] == ("resolved", 10, 25)


def test_budget_keeps_back_what_comes_on_top_for_each_tenant_and_day() -> None:
    engine = _engine(groupBy=["node"], budget=2)
    crowd = [_anomaly(f"{t}{n}", 10 + n, node=f"n{n}", tenant=t) for t in ("shop", "bank") for n in range(4)]
    alerts = engine.observe(_batch(*crowd, until=20))
    assert [alert.suppressed_by for alert in alerts] == [None, None, "budget", "budget"] * 2
    tomorrow = engine.observe(_batch(_anomaly("x", 24 * 60 + 5, node="x"), until=24 * 60 + 6))
    assert [alert.suppressed_by for alert in tomorrow] == [None]


MAINTENANCE = {"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=0;BYSECOND=0", "duration": "2h", "match": {"node": "db*"}}


def test_in_maintenance_an_alert_is_kept_back_and_sent_when_it_outlasts_the_window() -> None:
    engine = _engine(maintenance=[MAINTENANCE], resolveAfter="5m")
    kept = engine.observe(_batch(_anomaly("a", 130, node="db1"), until=131))
    assert kept[0].suppressed_by == "maintenance: FREQ=DAILY;BYHOUR=2;BYMINUTE=0;BYSECOND=0 (UTC)"
    sent = engine.observe(_batch(until=300))
    assert [(alert.state, alert.suppressed_by, _minute(alert.updated_at)) for alert in sent] == [("firing", None, 240)]


def test_what_ends_within_the_window_is_never_sent() -> None:
    engine = _engine(maintenance=[MAINTENANCE], resolveAfter="5m")
    alerts = engine.observe(
        _batch(_anomaly("a", 130, node="db1"), _anomaly("a", 130, 140, node="db1", at=142), until=300)
    )  # fmt: skip
    assert [alert.state for alert in alerts] == ["firing", "resolved"]
    assert all(alert.suppressed_by for alert in alerts)


def test_a_series_outside_of_the_window_brings_the_whole_alert_out() -> None:
    engine = _engine(maintenance=[MAINTENANCE])
    alerts = engine.observe(_batch(_anomaly("a", 130, node="db1"), _anomaly("b", 131, node="web1"), until=132))
    assert [bool(alert.suppressed_by) for alert in alerts] == [True, False]


def test_titles_are_one_line_that_a_person_understands() -> None:
    engine = _engine(groupBy=["cluster", "metric"], resolveAfter="5m")
    names = [_anomaly(f"a{n}", 724 if n == 0 else 725, node=f"n{3 + n}", peak_score=0.9 - n / 100) for n in range(8)]
    alerts = engine.observe(_batch(*names, until=726))
    assert alerts[0].title == "shop/eu: latency_ms spike on n3, since 12:04 UTC"
    assert alerts[-1].title == "shop/eu: latency_ms spike on n3 and 7 more nodes, since 12:04 UTC"
    assert alerts[-1].summary.splitlines() == [f"latency_ms 412 on n{n}" for n in (3, 4, 5)]
    ends = [_anomaly(f"a{n}", 725, 735, node=f"n{3 + n}", at=737) for n in range(8)]
    assert engine.observe(_batch(*ends, until=760))[-1].title.endswith("and 7 more nodes, 12:04–12:15 UTC")
    wide = _engine(groupBy=["tenant"]).observe(
        _batch(
            _anomaly("a", 1), _anomaly("b", 1, cluster="us", metric="error_rate", kind="level_shift", peak_score=0.9),
            until=2,
        )
    )  # fmt: skip
    expected = "shop (2 clusters): error_rate level shift and 1 more metric on us/n1 and 1 more node, since 00:01 UTC"
    assert wide[-1].title == expected


def test_a_slow_detector_does_not_let_an_alert_resolve_before_it_has_looked() -> None:
    engine = _engine(resolveAfter="5m")
    engine.observe(_batch(_anomaly("a", 10), until=11))
    engine.observe(_batch(_anomaly("b", 11, detector="slow"), until=11, detector="slow"))
    engine.observe(_batch(_anomaly("b", 11, 12, detector="slow", at=13), until=13, detector="slow"))
    assert engine.observe(_batch(_anomaly("a", 10, 12, at=13), until=60)) == []
    assert _told(engine.observe(_batch(until=20, detector="slow"))) == [("resolved", 10, 17)]


def test_a_finding_of_another_system_resolves_by_the_time_of_the_tenants_detectors() -> None:
    engine = _engine(resolveAfter="5m")
    finding = _anomaly("x", 10, 10, detector="external")
    fired = engine.observe(AnomalyBatch(detector="external", anomalies=[finding], watermarks={}))
    assert _told(fired) == [("firing", 10, None)]
    assert _told(engine.observe(_batch(until=20))) == [("resolved", 10, 15)]


def test_where_there_are_only_findings_of_other_systems_a_later_one_ends_an_earlier_one() -> None:
    engine = _engine(groupBy=["node"], resolveAfter="5m")
    told = []
    for n in range(2):
        finding = _anomaly(f"x{n}", 10 + 20 * n, 10 + 20 * n, detector="external", node=f"n{n}")
        told += _told(engine.observe(AnomalyBatch(detector="external", anomalies=[finding], watermarks={})))
    assert told == [("firing", 10, None), ("resolved", 10, 15), ("firing", 30, None)]


def test_a_snapshot_of_something_else_is_refused_with_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="stream is 'shop', this engine's is 'web': begin without it"):
        AlertEngine(_policy(), "web").restore(_engine().snapshot())
    with pytest.raises(ValueError, match="not a snapshot of alerts"):
        _engine().restore(b"\xc1")


def test_when_group_by_changes_the_old_alerts_end_and_what_lasts_makes_new_ones() -> None:
    old, new, last = _engine(groupBy=["node"]), _engine(groupBy=["cluster"]), _engine(groupBy=["cluster"])
    before = old.observe(_batch(_anomaly("a", 10), _anomaly("b", 11, node="n2"), until=12))
    new.restore(old.snapshot())
    last.restore(new.snapshot())  # killed before the first batch
    alerts = last.observe(_batch(_anomaly("a", 10, at=15, revision=2), until=15))
    assert [(a.state, a.id) for a in alerts[:2]] == [("resolved", a.id) for a in before]
    assert [a.group for a in alerts] == [{"node": "n1"}, {"node": "n2"}, {"cluster": "eu"}]
    assert alerts[2].state == "firing"


# --- the same alerts however the input is cut -------------------------------------------------------

_SPECS = st.fixed_dictionaries(
    {
        "groupBy": st.sampled_from([["cluster"], ["cluster", "metric"], ["node"], ["tenant"]]),
        "wait": st.sampled_from(["0s", "3m", "10m"]),
        "resolveAfter": st.sampled_from(["0s", "4m", "15m"]),
        "repeatAfter": st.sampled_from(["0s", "20m", "4h"]),
        "budget": st.sampled_from([None, 1, 3]),
        "maintenance": st.sampled_from(
            [[], [{"rrule": "FREQ=HOURLY;BYMINUTE=20;BYSECOND=0", "duration": "15m", "match": {"node": "n*"}}]]
        ),
    }
)

_RUNS = st.lists(
    st.tuples(
        st.sampled_from(["shop", "bank"]),
        st.sampled_from(["n1", "n2", "m1"]),
        st.sampled_from(["latency_ms", "error_rate"]),
        st.integers(0, 240),  # onset
        st.integers(0, 30),  # lasts
        st.integers(0, 12),  # noticed so much later
        st.integers(1, 12),  # closes so long after its end
        st.sampled_from([0.5, 0.7, 0.95]),
    ),
    min_size=1,
    max_size=12,
)


def _scored(score: float, end: float, anomaly: Anomaly) -> Anomaly:
    ended = T0 + int(end * MINUTE)
    return msgspec.structs.replace(anomaly, end=ended, peak_score=score, severity=severity_of(score))


def _timeline(runs: list[Any]) -> list[Anomaly]:
    """Opening, growing and closing revisions, in the order of the readings that make them."""
    revisions = []
    for n, (tenant, node, metric, onset, lasts, noticed, quiet, score) in enumerate(runs):
        about = {"tenant": tenant, "node": node, "metric": metric}
        end = onset + lasts
        known = min(onset + noticed, end)
        revisions.append(_scored(0.65, known, _anomaly(f"a{n}", onset, at=known, **about)))
        if lasts > 4:
            revisions.append(_scored(score, end - 1, _anomaly(f"a{n}", onset, at=end - 1, **about, revision=2)))
        revisions.append(_scored(score, end, _anomaly(f"a{n}", onset, end, at=end + quiet, **about, revision=3)))
    return sorted(revisions, key=lambda a: a.updated_at)


def _play(engine: AlertEngine, timeline: list[Anomaly], cuts: list[int], *, restart: bool = False) -> dict[str, Any]:
    """Every alert's revisions, with the timeline cut before the given positions."""
    spec = engine._spec
    told: dict[str, list[Alert]] = defaultdict(list)
    for start, stop in pairwise([0, *sorted({c for c in cuts if 0 < c < len(timeline)}), len(timeline)]):
        part = timeline[start:stop]
        newest = part[-1].updated_at
        batch = AnomalyBatch(detector="d", anomalies=part, watermarks={"shop": newest, "bank": newest})
        for alert in engine.observe(batch):
            told[alert.id].append(alert)
        if restart:
            fresh = AlertEngine(AlertPolicy.model_validate({"metadata": {"name": "few"}, "spec": spec}), "shop")
            fresh.restore(engine.snapshot())
            engine = fresh
    end = AnomalyBatch(detector="d", anomalies=[], watermarks={"shop": T0 + 999 * MINUTE, "bank": T0 + 999 * MINUTE})
    for alert in engine.observe(end):
        told[alert.id].append(alert)
    assert engine.active() == 0
    return dict(told)


@settings(max_examples=80, deadline=None)
@given(spec=_SPECS, runs=_RUNS, cuts=st.lists(st.integers(1, 36), max_size=12))
def test_batches_cut_in_any_way_give_the_same_revisions_of_the_same_alerts(
    spec: dict[str, Any], runs: list[Any], cuts: list[int]
) -> None:
    timeline = _timeline(runs)
    whole = _play(_engine(**spec), timeline, [])
    assert _play(_engine(**spec), timeline, cuts) == whole
    assert _play(_engine(**spec), timeline, list(range(len(timeline)))) == whole


@settings(max_examples=30, deadline=None)
@given(spec=_SPECS, runs=_RUNS)
def test_a_restart_from_a_snapshot_at_every_batch_changes_nothing(spec: dict[str, Any], runs: list[Any]) -> None:
    timeline = _timeline(runs)
    every = list(range(len(timeline)))
    assert _play(_engine(**spec), timeline, every, restart=True) == _play(_engine(**spec), timeline, every)


@settings(max_examples=60, deadline=None)
@given(spec=_SPECS, runs=_RUNS)
def test_every_alert_lives_once_in_order_and_ends_with_all_its_anomalies(spec: dict[str, Any], runs: list[Any]) -> None:
    timeline = _timeline(runs)
    for revisions in _play(_engine(**spec), timeline, list(range(len(timeline)))).values():
        assert [alert.revision for alert in revisions] == list(range(1, len(revisions) + 1))
        last = revisions[-1]
        assert last.state == "resolved"
        assert last.resolved_at is not None
        assert last.fired_at is None or last.started_at <= last.fired_at
        ends = [a.end for a in timeline if a.id in last.anomaly_ids]
        assert last.resolved_at >= max(ends)
