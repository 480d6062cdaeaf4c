"""Training: what a version has learned, how it is measured, and how a better model is searched for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.registry.manifest import Period
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.resources.base import Model
from tidewarden.resources.models import PARAMETERS
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from tidewarden.training.history import History
from tidewarden.training.search import Limits, Search, objective, ranges
from tidewarden.training.train import Trained, train
from tidewarden_cli.training.injecting import inject_all

MINUTE = 60_000
BEGIN = 1_767_571_200_000
N_SERIES, N_MINUTES = 40, 600
KEYS = [SeriesKey("t", "c", f"n{number:02d}", "m") for number in range(N_SERIES)]


def config(**spec: Any) -> ScorerConfig:
    given = AnomalyDetectorSpec.model_validate({"stream": "s", "model": {"kind": "ewma"}, **spec})
    return ScorerConfig("d", "s", given)


def history(*, labelled: bool, seed: int = 3) -> History:
    """Noise about 100; labelled: every fourth series has a spike of three readings near its end."""
    value = 100 + np.random.default_rng(seed).normal(0, 2, (N_MINUTES, N_SERIES))
    label = np.zeros(value.shape, np.uint8)
    if labelled:
        value[550:553, ::4] += 60
        label[550:553, ::4] = 2
    return History.of(
        KEYS, np.tile(np.arange(N_SERIES, dtype=np.int32), N_MINUTES),
        BEGIN + np.repeat(np.arange(N_MINUTES), N_SERIES) * MINUTE, value.ravel(), label.ravel() if labelled else None,
    )  # fmt: skip


def test_what_is_kept_has_learned_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is that of a scorer that was given the whole history at once, however it is cut into frames."""
    whole = history(labelled=False)
    table = SeriesTable()
    fed = Scorer(config(), table)
    fed.score(Frame(table, table.ids_of(whole.keys)[whole.series], whole.timestamp, whole.value))
    monkeypatch.setattr("tidewarden.training.train.FRAME_READINGS", 997)
    assert train(config(), whole).state == fed.snapshot()
    assert train(config(), whole, inject=inject_all).state == fed.snapshot(), "measuring leaves nothing behind"


def test_labels_measure_and_are_never_learned() -> None:
    """With labels all ten spikes are found on the part held out; the state is the same as without labels."""
    labelled = history(labelled=True)
    trained = train(config(), labelled)
    assert trained.metrics["events"] == 10
    assert trained.metrics["recall"] == 1.0
    assert trained.metrics["readings"] == N_SERIES * (N_MINUTES * 3 // 10)
    assert trained.metrics["learning"] == 0
    assert (trained.metrics["vus_pr"] or 0) > 0.8
    assert trained.state == train(config(), replace(labelled, label=None)).state


def test_without_labels_false_alarms_and_injected_anomalies_are_counted() -> None:
    """Calm noise: hardly an alarm, most of what was injected is found, and a budget is told beside it."""
    metrics = train(config(alerting={"budget": "4/day"}), history(labelled=False), inject=inject_all).metrics
    assert (metrics["false_alarms"] or 0) <= 2
    assert metrics["injected"] == N_SERIES
    assert (metrics["injected_recall"] or 0) > 0.7
    assert metrics["budget_per_day"] == 4.0
    assert "f1" not in metrics


def test_excluded_periods_are_not_learned() -> None:
    """An hour of nonsense leaves the state as if it had never been sent, and its silence is no false alarm."""
    spoiled = history(labelled=False)
    period = Period(BEGIN + 500 * MINUTE, BEGIN + 560 * MINUTE)
    inside = (spoiled.timestamp >= period.from_ms) & (spoiled.timestamp < period.until_ms)
    spoiled.value[inside] = 1e6
    trained = train(config(), spoiled, excluded=[period])
    assert trained.state == train(config(), spoiled.take(~inside)).state
    assert (trained.metrics["false_alarms"] or 0) <= 2
    assert trained.metrics["readings"] == N_SERIES * (N_MINUTES * 3 // 10 - 60)


def test_nothing_to_learn_from_is_said() -> None:
    """Everything excluded, or nothing selected: the message says what to change."""
    with pytest.raises(ValueError, match="fewer excluded periods"):
        train(config(), history(labelled=False), excluded=[Period(0, 2 * BEGIN)])
    with pytest.raises(ValueError, match=r"spec\.select matches none of the 40 series.*t/c/n00/m"):
        train(config(select={"metrics": ["cpu"]}), history(labelled=False))


def test_injected_anomalies_are_where_the_labels_are() -> None:
    """Unlabelled readings are untouched, labelled ones are not; the same seed gives the same, another one others."""
    calm = history(labelled=False)
    spoiled = inject_all(calm, seed=1)
    assert spoiled.label is not None
    changed = spoiled.value != calm.value
    np.testing.assert_array_equal(changed, spoiled.label > 0)
    assert set(np.unique(spoiled.series[changed])) == set(range(N_SERIES))
    assert set(np.unique(spoiled.label)) == {0, 2, 3, 4, 5}
    np.testing.assert_array_equal(inject_all(calm, seed=1).value, spoiled.value)
    assert (inject_all(calm, seed=2).label != spoiled.label).any()


def test_every_range_lies_within_the_field_s_bounds() -> None:
    """Both ends of each range of each kind are accepted by its field; whether fields go together, a trial finds out."""
    for kind, parameters in PARAMETERS.items():
        for one in ranges(kind) if kind != "ensemble" else []:
            ends = one.choices or ((int(one.low), int(one.high)) if one.whole else (one.low, one.high))
            for end in ends:
                given = {"upper": 1.0} if kind == "static" else {}
                assert not _refused(parameters, {**given, one.name: end}), f"{kind}.{one.name} = {end}"


def _refused(parameters: type[Model], given: dict[str, Any]) -> list[tuple[int | str, ...]]:
    """Fields that refuse what they were given."""
    try:
        parameters.model_validate(given)
    except ValidationError as error:
        return [found["loc"] for found in error.errors() if found["loc"]]
    return []


def test_a_search_is_never_worse_than_what_is_there() -> None:
    """The resource's own model is the first trial; the best of all is kept, and the same seed finds the same."""
    bad = config(model={"kind": "ewma", "ewma": {"half_life": 1.0}})
    one = Search(bad, history(labelled=True), kinds=["mad", "ewma"], limits=Limits(trials=8), seed=4).run()
    assert one.before is not None
    assert one.value >= one.before
    assert one.trials + one.pruned + one.failed == 8
    again = Search(bad, history(labelled=True), kinds=["mad", "ewma"], limits=Limits(trials=8), seed=4).run()
    assert (again.model, again.value) == (one.model, one.value)
    measured = train(replace(bad, spec=AnomalyDetectorSpec.model_validate({"stream": "s", "model": one.model})),
                     history(labelled=True))  # fmt: skip
    assert objective(measured.metrics, 1.0) == pytest.approx(one.value)


def test_an_interrupted_search_goes_on(tmp_path: Path) -> None:
    """From its journal, to the same number of trials in all; another question is another search."""
    heard: list[int] = []

    def search(trials: int, kinds: list[str]) -> Search:
        return Search(
            config(), history(labelled=True), kinds=kinds, limits=Limits(trials=trials), journal=tmp_path / "j.log",
            heard=lambda number, _value, _best: heard.append(number),
        )  # fmt: skip

    search(3, ["mad"]).run()
    found = search(5, ["mad"]).run()
    assert heard == [0, 1, 2, 3, 4]
    assert found.trials + found.pruned + found.failed == 5
    assert found.before is not None
    search(2, ["ewma"]).run()
    assert heard[5:] == [0, 1]


def test_a_model_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind without parameters is proposed again and again, and answered from the first time."""
    measured: list[str] = []

    def counting(config: ScorerConfig, *arguments: Any, **options: Any) -> Trained:
        measured.append(config.spec.model.kind)
        return train(config, *arguments, **options)

    monkeypatch.setattr("tidewarden.training.search.train", counting)
    found = Search(config(), history(labelled=True), kinds=["density"], limits=Limits(trials=6)).run()
    assert found.trials == 6
    assert measured == ["ewma", "ewma", "density", "density"], "each on a quarter of the series, then on all"


def test_time_and_memory_bound_a_search() -> None:
    """Without time or memory no trial comes to an end, and the message says what to give."""
    for limits in (Limits(trials=3, seconds=0.0), Limits(trials=3, state_bytes=10)):
        with pytest.raises(ValueError, match="give more of them"):
            Search(config(), history(labelled=True), kinds=["mad"], limits=limits).run()


def test_false_alarms_above_the_budget_cost_recall() -> None:
    """Each doubling above what is allowed costs a tenth; below it nothing is gained."""
    assert objective({"injected_recall": 0.8, "false_alarms_per_day": 1.0}, 2.0) == pytest.approx(0.8)
    assert objective({"injected_recall": 0.8, "false_alarms_per_day": 8.0}, 2.0) == pytest.approx(0.6)
