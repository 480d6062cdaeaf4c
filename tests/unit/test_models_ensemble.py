"""The ensemble: what it makes of its members' words, and what it leaves them."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tidewarden.frames import ABOVE, LEARNING, Frame, SeriesKey, SeriesTable
from tidewarden.models.contract import Judgement, Model
from tidewarden.models.ewma import Ewma
from tidewarden.models.registry import build
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.resources.models import PARAMETERS, EnsembleParams, Member, ModelSpec
from tidewarden.scoring.calibration import YOUNG, Calibrator
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from unit.slow_models import DAY_MS

MINUTE_MS = 60_000
MEMBERS: list[dict[str, Any]] = [
    {"kind": "ewma", "weight": 2.0, "ewma": {"warmup": 30}},
    {"kind": "static", "weight": 0.5, "static": {"lower": 85, "upper": 115}},
    {"kind": "pca", "weight": 3.0, "pca": {"warmup": 200}},
    {"kind": "mad", "mad": {"warmup": 60}},
]


def members_of(combine: str) -> list[dict[str, Any]]:
    """The four, with weights where they may have them."""
    return [m if combine == "weighted" else {k: v for k, v in m.items() if k != "weight"} for m in MEMBERS]


def ensemble(members: list[dict[str, Any]], combine: str = "mean") -> Model:
    spec = ModelSpec.model_validate({"kind": "ensemble", "ensemble": {"combine": combine, "members": members}})
    return build(spec, (DAY_MS,), MINUTE_MS)


def alone(member: dict[str, Any]) -> Model:
    return build(ModelSpec.model_validate({k: v for k, v in member.items() if k != "weight"}), (DAY_MS,), MINUTE_MS)


def noise(n_series: int = 3, n: int = 500, seed: int = 4) -> tuple[Any, ...]:
    """Interleaved noise around 100; some readings missing, some not to be learned."""
    rng = np.random.default_rng(seed)
    series = np.tile(np.arange(n_series, dtype=np.int32), n)
    timestamp = np.repeat(np.arange(n, dtype=np.int64) * MINUTE_MS, n_series)
    value = 100 + rng.normal(0, 5, len(series))
    value[rng.random(len(series)) < 0.02] = np.nan
    return series, timestamp, value, np.isfinite(value) & (rng.random(len(series)) < 0.97)


def judge(model: Model, series: Any, timestamp: Any, value: Any, learn: Any) -> Judgement:
    model.resize(int(series.max()) + 1)
    out = Judgement.blank(len(series))
    model.observe(series, timestamp, value, learn, out)
    return out


def opinions(member: dict[str, Any], data: tuple[Any, ...]) -> list[float | None]:
    """-log10 p of one member by itself, through the scorer's own calibration; None where it has no say."""
    model, (series, _, _, learn) = alone(member), data
    surprise = judge(model, *data).surprise
    if model.calibrated:
        return [None if np.isnan(s) else float(s) for s in surprise]
    calibrator, learned = Calibrator(), dict.fromkeys(series.tolist(), 0)
    calibrator.resize(len(learned))
    log10_p = calibrator.observe(series, surprise, learn)
    said: list[float | None] = []
    for i, s in enumerate(series.tolist()):
        spoken = not np.isnan(surprise[i])
        said.append(float(log10_p[i]) if spoken and learned[s] >= YOUNG else None)
        learned[s] += int(spoken and learn[i])
    return said


@pytest.mark.parametrize("combine", ["mean", "max", "median", "weighted"])
def test_the_members_words_are_combined_as_a_slow_version_does(combine: str) -> None:
    """Each member alone, calibrated alone, then the mean, maximum, median or weighted mean of those that speak."""
    members, data = members_of(combine), noise()
    surprise = judge(ensemble(members, combine), *data).surprise
    said = [opinions(member, data) for member in members]
    numbers_seen = set()
    for i, got in enumerate(surprise.tolist()):
        voices = [(row[i], m.get("weight", 1.0)) for row, m in zip(said, members, strict=True)]
        given = [(p, w) for p, w in voices if p is not None]
        numbers_seen.add(len(given))
        if not given:
            assert np.isnan(got)
            continue
        expected = {
            "mean": lambda given: mean(p for p, _ in given),
            "max": lambda given: max(p for p, _ in given),
            "median": lambda given: median(p for p, _ in given),
            "weighted": lambda given: sum(w * p for p, w in given) / sum(w for _, w in given),
        }[combine](given)
        assert got == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert numbers_seen == {0, 1, 2, 3, 4}, "missing readings, and every number of members that speak"


def test_a_member_that_still_learns_does_not_spoil_the_others() -> None:
    """Until the slow one speaks and its tail is known, the ensemble says what the others say without it, to the bit."""
    quick, slow = {"kind": "ewma", "ewma": {"warmup": 20}}, {"kind": "quantile", "quantile": {"window": 300}}
    other = {"kind": "mad", "mad": {"warmup": 20}}
    data = noise(1)
    without = judge(ensemble([quick, other]), *data)
    beside = judge(ensemble([quick, slow, other]), *data)
    spoken = np.flatnonzero(~np.isnan(judge(alone(slow), *data).surprise))
    learned = np.flatnonzero(np.cumsum(data[3][spoken]) >= YOUNG)[0]
    first = spoken[learned + 1]  # the first reading that its calibration can judge
    assert 300 < first < 400
    assert beside.surprise[:first].tobytes() == without.surprise[:first].tobytes()
    assert np.isfinite(without.surprise[100:first]).any()
    assert beside.surprise[first] != without.surprise[first]


def test_the_band_is_the_first_members_and_limits_come_last() -> None:
    """Where the first has none yet, the next one's; that of `static` only where nobody else has one."""
    static = {"kind": "static", "static": {"lower": 50, "upper": 150}}
    slow = {"kind": "quantile", "quantile": {"window": 300}}
    quick = {"kind": "ewma", "ewma": {"warmup": 20}}
    data = noise(1)
    got = judge(ensemble([static, slow, quick]), *data)
    sources = [judge(alone(member), *data) for member in (slow, quick, static)]
    used = set()
    for i in range(len(got.expected)):
        having = [k for k, source in enumerate(sources) if not np.isnan(source.expected[i])]
        if not having:
            assert np.isnan(got.expected[i])
            continue
        used.add(having[0])
        for field in ("expected", "lower", "upper"):
            assert getattr(got, field)[i] == getattr(sources[having[0]], field)[i]
    assert used == {0, 1, 2}


def test_warm_up_and_memory_are_those_of_the_members() -> None:
    """The slowest member's readings; the sum of all states and of a tail of 32 numbers for each that is calibrated."""
    model, parts = ensemble(members_of("mean")), [alone(member) for member in MEMBERS]
    assert model.warmup == max(part.warmup for part in parts) == 200
    assert model.state_bytes_per_series == sum(part.state_bytes_per_series for part in parts) + 3 * 32 * 8
    assert not model.calibrated, "a mean of p-values is no p-value"


def test_a_snapshot_of_other_members_or_another_version_of_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of the arrays say whose they are: nothing is read by a member that did not write it."""
    members = [{"kind": "ewma"}, {"kind": "mad"}]
    model = ensemble(members)
    judge(model, *noise(2, 50))
    state = model.snapshot()
    with pytest.raises(ValueError, match=r"snapshot has the array '0-ewma-\d+\.model"):
        ensemble(members[::-1]).restore(state)
    with pytest.raises(ValueError, match="snapshot"):
        ensemble([*members, {"kind": "pca"}]).restore(state)
    monkeypatch.setattr(Ewma, "version", Ewma.version + 1)
    with pytest.raises(ValueError, match="snapshot has the array '0-ewma"):
        ensemble(members).restore(state)


def test_an_ensemble_finds_what_one_member_sees_also_upwards_only() -> None:
    """In the whole scorer: a spike within the limits is an anomaly, the warm-up is not; p-values are uniform again."""
    model = {
        "kind": "ensemble",
        "ensemble": {"combine": "max", "members": [MEMBERS[k] | {"weight": 1} for k in (1, 0)]},
    }
    spec = AnomalyDetectorSpec.model_validate(
        {"stream": "s", "model": model, "seasonality": [], "alerting": {"threshold": 0.8, "direction": "up"}}
    )
    table = SeriesTable([SeriesKey("t", "c", "n", "m")])
    rng = np.random.default_rng(1)
    value = 100 + rng.normal(0, 1, 1500)
    value[1200] = 112.0  # static takes up to 115
    frame = Frame(table, np.zeros(1500, np.int32), np.arange(1500, dtype=np.int64) * MINUTE_MS, value)
    scores = Scorer(ScorerConfig("d", "s", spec), table).score(frame).scores
    above = np.flatnonzero(scores.flags & ABOVE)
    assert 1200 in above
    assert len(above) <= 2
    assert (scores.flags[:30] & LEARNING).all()
    calm = scores.p_value[200:]
    assert 0.35 < np.median(calm) < 0.65
    assert 0.005 < np.mean(calm < 0.02) < 0.05


def test_a_scorer_goes_on_from_its_snapshot_while_some_members_still_learn() -> None:
    """Packed, unpacked and adopted into a table with other ids: the same scores to the bit as without a break."""
    model = {"kind": "ensemble", "ensemble": {"combine": "weighted", "members": MEMBERS}}
    config = ScorerConfig("d", "s", AnomalyDetectorSpec.model_validate({"stream": "s", "model": model}))
    series, timestamp, value, _ = noise()
    keys = [SeriesKey("t", "c", "n", f"m{i}") for i in range(3)]

    def frame(table: SeriesTable, rows: slice) -> Frame:
        return Frame(table, table.ids_of(keys)[series[rows]], timestamp[rows], value[rows])

    half, table, other = slice(0, 450), SeriesTable(), SeriesTable([SeriesKey("t", "c", "n", "another")])
    whole = Scorer(config, table)
    whole.score(frame(table, half))
    resumed = Scorer(config, other)
    resumed.restore(whole.snapshot())
    rest = slice(450, None)
    expected, got = whole.score(frame(table, rest)).scores, resumed.score(frame(other, rest)).scores
    for column in ("anomaly_score", "p_value", "expected", "lower", "upper", "flags"):
        assert getattr(got, column).tobytes() == getattr(expected, column).tobytes(), column
    assert len(np.unique(got.p_value)) > 500, "most readings have a p-value of their own"


def test_a_member_can_be_of_every_kind_but_an_ensemble() -> None:
    """Members have the same kinds and blocks as a model by itself; ensembles do not nest, so a schema of them ends."""
    assert set(Member.model_fields) == set(ModelSpec.model_fields) - {"ensemble"} | {"weight"}
    assert set(PARAMETERS) == set(Member.model_fields) - {"kind", "parameters", "weight"} | {"ensemble"}
    nested = {"kind": "ensemble", "ensemble": {"members": [{"kind": "ewma"}, {"kind": "mad"}]}}
    with pytest.raises(ValidationError, match=r"ensemble\.members\.0\.kind"):
        ModelSpec.model_validate({"kind": "ensemble", "ensemble": {"members": [nested, {"kind": "mad"}]}})


@pytest.mark.parametrize("count", [0, 1, 9])
def test_two_to_eight_members(count: int) -> None:
    """One is no ensemble; more than eight are refused."""
    with pytest.raises(ValidationError, match="members"):
        EnsembleParams.model_validate({"members": [{"kind": "ewma"}] * count})
