"""A candidate beside its champion: who answers, what is counted, who is promoted and who goes back."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from tidewarden.bus.port import Record
from tidewarden.clock import ManualClock
from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.models import registry
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.resources.models import ModelSpec
from tidewarden.resources.references import _check_seasons
from tidewarden.scoring.candidates import Contest, in_share
from tidewarden.scoring.evidence import log_evidence_for_more
from tidewarden.scoring.scorer import ScorerConfig
from tidewarden.telemetry import Telemetry
from tidewarden_services.detect.service import DetectService

STEP_MS = 60_000
KEYS = [SeriesKey("shop", "eu", f"n{i // 3}", f"m{i % 3}") for i in range(12)]
STREAM = MetricStream.model_validate({"metadata": {"name": "shop"}, "spec": {"tenants": ["shop"], "interval": "1m"}})
CALM = {"kind": "ewma", "ewma": {"warmup": 40}}
ALIKE = {"kind": "ewma", "ewma": {"warmup": 41}}
TIGHT = {"kind": "static", "static": {"upper": 104.0}}  # sees a normal reading in five as an alarm
WIDE = {"kind": "static", "static": {"upper": 150.0}}


def resource(model: dict, candidate: dict | None, **spec) -> AnomalyDetector:
    body = {"stream": "shop", "model": model, "seasonality": [], **spec}
    if candidate is not None:
        body["candidate"] = candidate
    return AnomalyDetector.model_validate({"metadata": {"name": "watch"}, "spec": body})


def records(table: SeriesTable, n: int, seed: int = 0) -> list[Frame]:
    """Noise with a large spike of three readings in each series now and then."""
    rng = np.random.default_rng(seed)
    ids = table.ids_of(KEYS)
    value = rng.normal(100, 5, (n, len(ids)))
    for series in range(len(ids)):
        for at in range(90 + series, n - 20, 180):
            value[at : at + 3, series] += 100
    return [Frame(table, ids, np.full(len(ids), i * STEP_MS, np.int64), value[i]) for i in range(n)]


def service(detector: AnomalyDetector, table: SeriesTable) -> DetectService:
    return DetectService(detector, STREAM, table, Telemetry(), ManualClock())


def plain(outputs) -> list:
    """Outputs as they can be compared to the bit."""
    said = []
    for out in outputs:
        if out.purpose == "scores":
            f = out.value
            columns = (f.series, f.timestamp, f.value, f.anomaly_score, f.p_value, f.flags)
            said.append((f.model_version, out.time, *(c.tobytes() for c in columns)))
        else:
            said.append((out.value, out.time))
    return said


def handled(at: DetectService, frames: list[Frame]) -> list:
    return [said for frame in frames for said in plain(at.handle(_record(frame)))]


def _record(frame: Frame) -> Record:
    return Record("readings", 0, 0, "k", frame, {})


def contest_of(made: DetectService) -> Contest:
    assert isinstance(made._scorer, Contest)
    return made._scorer


def test_a_shadow_changes_nothing_that_is_said() -> None:
    """With a candidate in shadow scores and anomalies are those without it, to the bit."""
    table = SeriesTable(KEYS)
    frames = records(table, 300)
    alone = handled(service(resource(CALM, None), table), frames)
    assert handled(service(resource(CALM, {"model": WIDE}), table), frames) == alone


@pytest.mark.parametrize("mode", ["shadow", "canary", "promoted"])
@pytest.mark.parametrize("seed", range(3))
def test_killed_between_any_two_records_it_says_and_decides_the_same(mode: str, seed: int) -> None:
    """Snapshots into new services, at random places, change neither output nor how the contest stands."""
    frames_table = SeriesTable(KEYS)
    frames = records(frames_table, 300, seed)
    candidate = {"model": TIGHT, "mode": mode, "share": 50}
    whole = service(resource(CALM, candidate), frames_table)
    expected = handled(whole, frames)
    rng = np.random.default_rng(seed)
    at, said = service(resource(CALM, candidate), frames_table), []
    for frame in frames:
        if rng.random() < 0.1:
            state = at.snapshot()
            at = service(resource(CALM, candidate), frames_table)
            at.restore(state)
        said += handled(at, [frame])
    assert said == expected
    assert contest_of(at).report() == contest_of(whole).report()


def test_a_canary_of_too_many_alarms_goes_back() -> None:
    """A candidate that sees an alarm in every fifth reading is rolled back, and the champion answers again."""
    table = SeriesTable(KEYS)
    at = service(resource(CALM, {"model": TIGHT, "mode": "canary", "share": 50}), table)
    handled(at, records(table, 500))
    report = contest_of(at).report()
    assert (report.mode, report.series) == ("rolledBack", 0)


def test_a_share_is_the_same_and_grows() -> None:
    """Who is in a canary of 10 % is in one of 30 %, and the shares are about that."""
    paths = [f"shop/eu/n{i}/cpu" for i in range(4_000)]
    small, large = ({p for p in paths if in_share(p, percent)} for percent in (10, 30))
    assert small < large
    assert 0.08 < len(small) / 4_000 < 0.12


def test_the_candidate_goes_on_when_it_becomes_the_model() -> None:
    """With spec.model set to the candidate's and the candidate removed, nothing is learned anew."""
    table = SeriesTable(KEYS)
    frames = records(table, 300)
    other = {"kind": "ewma", "ewma": {"warmup": 60}}
    at = service(resource(CALM, {"model": other, "mode": "promoted"}), table)
    handled(at, frames[:200])
    after = service(resource(other, None), table)
    after.restore(at.snapshot())
    alone = service(resource(other, None), table)
    handled(alone, frames[:200])
    assert handled(after, frames[200:]) == handled(alone, frames[200:])


def test_evidence_is_the_integral_it_says() -> None:
    """The closed form is 2 to the n+1 times the integral of the likelihood from a half to one."""
    p = (np.arange(200_000) + 0.5) / 400_000 + 0.5
    for wins, losses in ((0, 0), (5, 0), (0, 5), (30, 20), (7, 7)):
        integral = float(np.mean(p**wins * (1 - p) ** losses)) / 2 * 2.0 ** (wins + losses + 1)
        assert np.isclose(np.exp(log_evidence_for_more(wins, losses)), integral, rtol=1e-4)


@pytest.mark.parametrize("mode", ["canary", "promoted"])
def test_one_that_is_better_or_as_good_is_not_rolled_back(mode: str) -> None:
    """Fewer alarms than the champion's, or the same ones, are no reason to go back; both keep answering."""
    table = SeriesTable(KEYS)
    frames = records(table, 500)
    for champion, candidate in ((TIGHT, WIDE), (CALM, ALIKE)):
        at = service(resource(champion, {"model": candidate, "mode": mode, "share": 50}), table)
        handled(at, frames)
        assert contest_of(at).report().mode == mode


def test_evidence_for_more_seldom_convinces_of_what_is_not() -> None:
    """Looked at after each of 300 fair events, evidence reaches 1/0.05 in at most 5 % of 400 runs (Ville's bound)."""
    lucky = 0
    for seed in range(400):
        wins = np.cumsum(np.random.default_rng(seed).random(300) < 0.5)
        most = max(log_evidence_for_more(int(won), n - int(won)) for n, won in enumerate(wins, 1))
        lucky += most >= np.log(1 / 0.05)
    assert 0 < lucky <= 20


def test_a_canary_answers_for_its_share_only() -> None:
    """Series in the share have the candidate's scores, the others the champion's, however frames are cut."""
    table = SeriesTable(KEYS)
    frames = records(table, 200)
    made = {
        name: Contest(ScorerConfig.of(resource(CALM, {"model": WIDE, "mode": mode, "share": 50}), STREAM), table)
        for name, mode in (
            ("champion", "shadow"),
            ("canary", "canary"),
            ("halves", "canary"),
            ("candidate", "promoted"),
        )
    }
    for frame in frames:
        half = len(frame.series) // 2
        parts = [
            Frame(table, frame.series[rows], frame.timestamp[rows], frame.value[rows])
            for rows in (slice(0, half), slice(half, None))
        ]
        scores = {name: contest.score(frame).scores.anomaly_score for name, contest in made.items() if name != "halves"}
        halves = np.concatenate([made["halves"].score(part).scores.anomaly_score for part in parts])
        chosen = np.array([in_share(table[i].path, 50) for i in frame.series.tolist()])
        assert 0 < chosen.sum() < len(chosen)
        assert np.array_equal(scores["canary"], np.where(chosen, scores["candidate"], scores["champion"]))
        assert np.array_equal(halves, scores["canary"])


def test_a_snapshot_from_before_there_were_candidates_is_gone_on_from() -> None:
    """The champion keeps what it learned; the contest begins with nothing counted."""
    table = SeriesTable(KEYS)
    frames = records(table, 200)
    before = service(resource(CALM, None), table)
    handled(before, frames[:100])
    old = msgspec.msgpack.decode(before.snapshot())
    for name in ("candidate", "contest", "orphans"):
        del old[name]
    at = service(resource(CALM, {"model": WIDE}), table)
    at.restore(msgspec.msgpack.encode(old))
    assert contest_of(at).report().comparison.readings == 0
    assert handled(at, frames[100:]) == handled(before, frames[100:])


def test_another_candidate_begins_with_nothing_counted() -> None:
    """Counts of a candidate that is no longer there are not the new one's; the champion goes on as it was."""
    table = SeriesTable(KEYS)
    frames = records(table, 300)
    before = service(resource(CALM, {"model": TIGHT}), table)
    handled(before, frames[:200])
    at = service(resource(CALM, {"model": WIDE}), table)
    at.restore(before.snapshot())
    assert contest_of(at).report().comparison.alarms == [0, 0]
    assert handled(at, frames[200:]) == handled(before, frames[200:])


def test_a_candidate_whose_state_is_damaged_begins_with_nothing_counted() -> None:
    """Its counts are not those of a model that has forgotten all; a line of the log says so, the champion goes on."""
    table = SeriesTable(KEYS)
    frames = records(table, 300)
    before = service(resource(CALM, {"model": TIGHT}), table)
    handled(before, frames[:200])
    state = msgspec.msgpack.decode(before.snapshot())
    state["candidate"] = state["candidate"][:-1]
    at = service(resource(CALM, {"model": TIGHT}), table)
    with capture_logs() as lines:
        at.restore(msgspec.msgpack.encode(state))
    assert contest_of(at).report().comparison.readings == 0
    assert [line["event"] for line in lines] == ["the candidate begins anew, nothing counted"]
    assert handled(at, frames[200:]) == handled(before, frames[200:])


def test_a_candidate_that_cannot_be_built_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a plug-in refuses its parameters for a detector's own model; said is whose model it is."""

    def refuse_static(model: ModelSpec, *_: object) -> None:
        if model.kind == "static":
            raise ValueError("no such parameter")

    monkeypatch.setattr(registry, "build", refuse_static)
    with pytest.raises(ValueError, match="AnomalyDetector/watch: candidate: no such parameter"):
        registry.check(resource(CALM, {"model": WIDE}), STREAM)


def test_a_seasonal_candidate_must_see_a_season() -> None:
    """Its warm-up is held against the stream's interval, too, and the finding names the candidate's field."""
    short = resource(CALM, {"model": {"kind": "seasonal", "seasonal": {"warmup": 10}}}, seasonality=["1d"])
    assert ("spec", "candidate", "model", "seasonal", "warmup") in [
        found.path for found in _check_seasons(short, STREAM)
    ]
