"""The search for a better model: kinds and their parameters, tried on the same history, the best one kept.

Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) proposes, seeded; each trial is measured on a quarter
of the series first and given up there if it is worse than the median of those before it. The first trial is what
the resource has now, so the result is never worse than that. Trials are kept in a journal, from which a search that
was interrupted goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin

import numpy as np
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tidewarden.frames import SeriesTable
from tidewarden.registry.manifest import Period
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.resources.models import PARAMETERS, ModelSpec
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from tidewarden.training.history import History
from tidewarden.training.train import HOLD_OUT, Injector, Progress, train

if TYPE_CHECKING:
    import optuna

KINDS = ("auto", "density", "seasonal", "mad", "ewma", "holt_winters", "histogram", "loda")
"""What is tried unless others are named: quick models, of different families."""

NOT_SEARCHED = ("seed", "warmup")  # luck; and all are to be measured on the same readings
FACTOR = 8.0  # a number is looked for between an eighth of its default and eight times that, within its bounds
FIRST_RUNG = 0.25  # of the series
LEAST_SERIES = 8  # below, a quarter says too little to give up on
ALLOWED_PER_SERIES_DAY = 1 / 7  # false alarms where the resource has no budget


class Range(NamedTuple):
    """Where a parameter is looked for."""

    name: str
    low: float
    high: float
    whole: bool
    choices: tuple[Any, ...] = ()  # instead of low and high


def ranges(kind: str) -> list[Range]:
    """The parameters of a kind that are searched, with bounds from its fields.

    Numbers lie between an eighth of their default and eight times it; those without a default, or with 0, stay
    as they are, and so does what is neither number, choice nor flag.
    """
    found = []
    for name, field in PARAMETERS[kind].model_fields.items():
        one = _range(name, field)
        if one is not None and name not in NOT_SEARCHED:
            found.append(one)
    return found


def _range(name: str, field: FieldInfo) -> Range | None:
    options = [field.annotation]
    if get_origin(field.annotation) in {Union, UnionType}:
        options = [option for option in get_args(field.annotation) if option is not type(None)]
    kind, default = options[0], field.default
    if kind is bool:
        return Range(name, 0, 0, False, (False, True))
    if get_origin(kind) is Literal:
        return Range(name, 0, 0, False, get_args(kind))
    if kind not in {int, float} or not isinstance(default, (int, float)) or default <= 0:
        return None
    limits = {bound: getattr(note, bound) for note in field.metadata for bound in ("ge", "gt", "le", "lt")
              if getattr(note, bound, None) is not None}  # fmt: skip
    low = max(default / FACTOR, limits.get("ge", -np.inf), np.nextafter(limits.get("gt", -np.inf), np.inf))
    high = min(default * FACTOR, limits.get("le", np.inf), np.nextafter(limits.get("lt", np.inf), -np.inf))
    if kind is int:
        low, high = float(np.ceil(low)), float(np.floor(high))
    return Range(name, float(low), float(high), kind is int) if low < high else None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a search may take."""

    trials: int = 50  # in all, those of an interrupted search included
    seconds: float = 300.0
    state_bytes: int = 2 << 30  # of one model over all series; what would take more is not tried


@dataclass(frozen=True, slots=True)
class Found:
    """The best model of a search."""

    model: dict[str, Any]  # as spec.model
    value: float  # of the objective
    before: float | None  # of the resource's own model
    trials: int  # finished ones
    pruned: int
    failed: int


def objective(metrics: dict[str, float | int | None], allowed_per_day: float) -> float:
    """What is made as large as possible, about 0 to 1.

    With labels: the mean of event F1 at the resource's budget or threshold, and VUS-PR. Without: the recall of injected
    anomalies, less a tenth for each doubling of the false alarms above what is allowed.
    """
    f1, volume = metrics.get("f1"), metrics.get("vus_pr")
    if f1 is not None or volume is not None:
        return ((f1 or 0.0) + (volume or 0.0)) / 2
    alarms = metrics.get("false_alarms_per_day") or 0.0
    excess = max(0.0, float(np.log2(alarms / allowed_per_day))) if alarms > 0 else 0.0
    return (metrics.get("injected_recall") or 0.0) - 0.1 * excess


class Search:
    """One search.

    Args:
        config: the detector as its resource has it, with the history's interval.
        history: what to measure on.
        kinds: kinds of model to try.
        limits: trials, time, memory.
        seed: of the proposals.
        journal: file of the trials; None: they are forgotten at the end.
        excluded: periods that are left out.
        hold_out: share of the time that is measured.
        inject: for histories without labels.
        heard: told after each trial: its number, its value or None, and the best value so far.
        progress: told how many readings were dealt with.
    """

    def __init__(
        self,
        config: ScorerConfig,
        history: History,
        *,
        kinds: Sequence[str] = KINDS,
        limits: Limits = Limits(),
        seed: int = 0,
        journal: Path | None = None,
        excluded: Sequence[Period] = (),
        hold_out: float = HOLD_OUT,
        inject: Injector | None = None,
        heard: Callable[[int, float | None, float | None], None] = lambda _number, _value, _best: None,
        progress: Progress | None = None,
    ) -> None:
        self._config = config
        self._history = history.selected(config.spec.select).without(excluded)
        self._kinds = [kind for kind in dict.fromkeys(kinds) if kind != "ensemble"]
        self._limits = limits
        self._seed = seed
        self._journal = journal
        self._excluded = excluded
        self._hold_out = hold_out
        self._inject = inject
        self._heard = heard
        self._progress = progress
        self._deadline = float("inf")
        self._own_due = True  # the resource's own model is still to be tried
        if not len(self._history):
            raise ValueError("there is no reading to measure on: name other data, or fewer excluded periods")

    def run(self) -> Found:
        """Search until trials or time are used up."""
        try:
            import optuna
        except ImportError:
            raise ValueError("a search needs the extra train: pip install 'tidewarden[train]'") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = self._study()
        done = len(study.trials)
        self._own_due = not any(_counts(t) and t.user_attrs.get("as_it_is") for t in study.trials)
        self._deadline = time.monotonic() + self._limits.seconds

        def told(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            best = max((t.value or 0.0 for t in study.trials if _counts(t)), default=None)
            self._heard(trial.number, trial.value if _counts(trial) else None, best)

        if done < self._limits.trials:
            study.optimize(
                self._try, n_trials=self._limits.trials - done, timeout=self._limits.seconds, callbacks=[told]
            )
        finished = [t for t in study.trials if _counts(t)]
        if not finished:
            raise ValueError(
                f"none of {len(study.trials)} trials came to an end within time and memory: give more of them, "
                "less data, or quicker kinds"
            )
        best = max(finished, key=lambda t: (t.value or 0.0, -t.number))
        states = [t.state.name for t in study.trials]
        return Found(
            model=best.user_attrs["model"],
            value=float(best.value or 0.0),
            before=next((float(t.value or 0.0) for t in finished if t.user_attrs.get("as_it_is")), None),
            trials=len(finished),
            pruned=states.count("PRUNED"),
            failed=states.count("FAIL"),
        )

    def _study(self) -> optuna.Study:
        import optuna
        from optuna.storages import InMemoryStorage, JournalStorage
        from optuna.storages.journal import JournalFileBackend

        storage: optuna.storages.BaseStorage = InMemoryStorage()
        if self._journal is not None:
            self._journal.parent.mkdir(parents=True, exist_ok=True)
            storage = JournalStorage(JournalFileBackend(str(self._journal)))
        study = optuna.create_study(
            study_name=self._name(),
            storage=storage,
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0),
        )
        # Where it goes on, the same seed would propose what was tried already.
        study.sampler = optuna.samplers.TPESampler(seed=self._seed + len(study.trials), n_startup_trials=8)
        return study

    def _name(self) -> str:
        """The same for the same question only: other data, another detector or other kinds are another search."""
        from tidewarden.events import stable_id

        window, spec = self._history.window(), self._config.spec
        asked = spec.model_dump_json(exclude={"replicas", "autoscaling", "training", "rollup", "paused"})
        return stable_id(self._config.detector, asked, repr(window), ",".join(self._kinds), repr(self._hold_out))

    def _try(self, trial: optuna.Trial) -> float:
        """One model, measured."""
        import optuna

        model = self._propose(trial)
        try:
            config = with_model(self._config, model)
            trial.set_user_attr("model", _written(config.spec.model))
            bytes_needed = Scorer(config, SeriesTable()).state_bytes_per_series * len(self._history.keys)
        except (ValidationError, ValueError) as error:  # parameters that do not go together
            trial.set_user_attr("refused", str(error)[:500])
            raise optuna.TrialPruned from None
        if bytes_needed > self._limits.state_bytes:
            trial.set_user_attr("refused", f"needs {bytes_needed} bytes")
            raise optuna.TrialPruned
        for earlier in trial.study.get_trials(deepcopy=False):  # kinds without parameters come again and again
            if _counts(earlier) and earlier.user_attrs["model"] == trial.user_attrs["model"]:
                return float(earlier.value or 0.0)
        value = 0.0
        for step, history in enumerate(self._rungs()):
            value = self._measure(config, history)
            trial.report(value, step)
            if step == 0 and trial.should_prune() and not trial.user_attrs.get("as_it_is"):
                raise optuna.TrialPruned
        return value

    def _rungs(self) -> Iterator[History]:
        """A quarter of the series, evenly spread, where there are enough; then all."""
        n = len(self._history.keys)
        if n >= LEAST_SERIES / FIRST_RUNG:
            wanted = np.zeros(n, np.bool_)
            wanted[:: int(1 / FIRST_RUNG)] = True
            yield self._history.of_series(wanted)
        yield self._history

    def _measure(self, config: ScorerConfig, history: History) -> float:
        import optuna

        def progress(readings: int) -> None:
            if self._progress is not None:
                self._progress(readings)
            if time.monotonic() > self._deadline:
                raise optuna.TrialPruned

        said = train(
            config, history, excluded=self._excluded, hold_out=self._hold_out, inject=self._inject, progress=progress
        )
        budget = config.spec.alerting.budget
        return objective(said.metrics, ALLOWED_PER_SERIES_DAY * len(history.keys) if budget is None else budget)

    def _propose(self, trial: optuna.Trial) -> dict[str, Any]:
        if self._own_due:
            self._own_due = False
            trial.set_user_attr("as_it_is", True)
            return _written(self._config.spec.model)
        kind = trial.suggest_categorical("kind", self._kinds)
        parameters: dict[str, Any] = {}
        for one in ranges(kind):
            name = f"{kind}.{one.name}"
            if one.choices:
                parameters[one.name] = trial.suggest_categorical(name, one.choices)
            elif one.whole:
                parameters[one.name] = trial.suggest_int(name, int(one.low), int(one.high), log=one.low >= 1)
            else:
                parameters[one.name] = round(trial.suggest_float(name, one.low, one.high, log=True), 6)
        return {"kind": kind, kind: parameters} if parameters else {"kind": kind}


def _counts(trial: optuna.trial.FrozenTrial) -> bool:
    return trial.state.name == "COMPLETE"


def with_model(config: ScorerConfig, model: dict[str, Any]) -> ScorerConfig:
    """The same detector with another model; ValueError says what does not go together."""
    given = config.spec.model_dump(mode="json", by_alias=True, exclude={"training"}, exclude_none=True)
    return replace(config, spec=AnomalyDetectorSpec.model_validate({**given, "model": model}))


def _written(model: ModelSpec) -> dict[str, Any]:
    """As it stands in a resource."""
    written: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return written
