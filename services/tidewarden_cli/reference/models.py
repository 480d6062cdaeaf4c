"""The catalogue of models: what each kind is and when it fails, its parameters, warm-up, memory and measured speed.

Prose comes from the docstring of the file that implements the kind, parameters from its block, warm-up and memory from
the model as built, speed and accuracy from what the benchmarks last wrote (`measured`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from tidewarden.frames import SeriesTable
from tidewarden.models.contract import Model
from tidewarden.models.registry import build
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.resources.models import PARAMETERS
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from tidewarden_cli.reference.markdown import NOTE, table
from tidewarden_cli.reference.measured import DOCS, SPEED_COMMAND, Accuracies, Speeds
from tidewarden_cli.reference.resources import field_table

FAILS = "Where it fails:"
FAMILIES: dict[str, tuple[str, ...]] = {
    "Automatic": ("auto",),
    "Combined": ("ensemble",),
    "Statistical": (
        "ewma", "mad", "zscore", "iqr", "cusum", "seasonal", "holt_winters", "stl", "ar", "static", "quantile",
    ),
    "Density and distance": ("density", "loda", "histogram", "ecod", "knn", "lof", "dbscan", "matrix_profile"),
    "Trees": ("half_space_trees", "isolation_forest", "random_cut_forest"),
    "Sub-space and boundary": ("pca", "mahalanobis", "one_class_svm"),
}  # fmt: skip
"""Kinds by family, in the order of the page."""
_NEEDED: dict[str, dict[str, Any]] = {  # the blocks without which a kind has no sense
    "static": {"lower": 0, "upper": 300},
    "ensemble": {"members": [{"kind": "ewma"}, {"kind": "pca"}]},
}
_INTERVAL_MS = 60_000
_GUIDE = """\
- Start with `auto`: it asks nothing of you. How it does on labelled data beside others: [accuracy](../accuracy.md).
- You know the limits: `static`. You would rather read them off the first day or so, and keep them: `quantile`.
- A level that moves slowly, no time of day: `ewma` costs least, `mad` minds no outlier, `iqr` suits skewed signals.
- A day or a week that repeats: `seasonal`; with growth on top `holt_winters`; on a level that wanders or steps `stl`.
- Neighbouring readings resemble each other (queues, temperatures): `ar`. Small shifts that last, no season: `cusum`.
- Two opinions are better than one: `ensemble` combines any of these, each calibrated by itself.
- The shape is news, not the value: `matrix_profile` over a whole season, `pca` and `mahalanobis` over a few readings.
- Something rare among ordinary values: `knn`; `lof` where calm and lively take turns; `random_cut_forest` if it has to
  say which of the last readings it was. Distances and trees cost most: look at memory and speed below.
"""


def models_page(docs: Path = DOCS) -> str:
    """Every kind of model, family by family.

    Raises:
        ValueError: a kind has no family, or a docstring names a constant that its file does not know.
    """
    homeless = set(PARAMETERS) - {kind for family in FAMILIES.values() for kind in family}
    if homeless:
        raise ValueError(f"model kind {min(homeless)!r} has no family: add it to FAMILIES in {Path(__file__).name}")
    speeds, accuracies = Speeds.read(docs), Accuracies.read(docs)
    models = {kind: _built(kind) for family in FAMILIES.values() for kind in family}
    lines = [
        NOTE,
        "# Models\n",
        "What `spec.model.kind` of an [AnomalyDetector](resources.md#anomalydetector) can be.\n",
        "## Which one\n",
        _GUIDE,
        "## All of them\n",
        "Warm-up (in readings) and memory are those of the defaults: one season of a day, a reading a minute. Memory "
        f"is the model's alone: calibration and alerting add up to {_beside():,} bytes a series.\n",
        _measured_how(speeds),
        "VUS-PR is the mean over the sets of labelled data in [accuracy](../accuracy.md), of the score as it is, at "
        "the defaults. A dash: not measured, or not on all of them.\n",
        *_overview(models, speeds, accuracies),
    ]
    for family, kinds in FAMILIES.items():
        lines.append(f"## {family}\n")
        for kind in kinds:
            lines += _chapter(kind, models[kind], speeds, accuracies)
    return "\n".join(lines)


def snippet(kind: str) -> str:
    """An AnomalyDetector with a model of this kind, in YAML, every parameter at its default."""
    parameters = spec_of(kind).model.block.model_dump(mode="json", by_alias=True, exclude_none=True)
    document = {
        "apiVersion": "tidewarden.dev/v1alpha1",
        "kind": "AnomalyDetector",
        "metadata": {"name": f"shop-{kind.replace('_', '-')}"},
        "spec": {"stream": "shop", "model": {"kind": kind, kind: parameters}},
    }
    return str(yaml.safe_dump(document, sort_keys=False))


def spec_of(kind: str) -> AnomalyDetectorSpec:
    """A detector with a model of this kind at its defaults, and with what it needs beyond them."""
    return AnomalyDetectorSpec.model_validate(
        {"stream": "shop", "model": {"kind": kind, kind: _NEEDED.get(kind, {})}},
    )


def docstring_of(kind: str) -> str:
    """What the file that implements ``kind`` says of it."""
    return _file_of(_built(kind)).__doc__ or ""


def _built(kind: str) -> Model:
    spec = spec_of(kind)
    return build(spec.model, spec.seasonality, _INTERVAL_MS)


def _beside() -> int:
    """Bytes a series that the scorer keeps beside a model that it calibrates; beside one that needs none, less."""
    scorer = Scorer(ScorerConfig("shop", "shop", spec_of("ewma")), SeriesTable())
    return scorer.state_bytes_per_series - _built("ewma").state_bytes_per_series


def _measured_how(speeds: Speeds) -> str:
    if not speeds.readings_per_s_core:
        return f"Speed was not measured yet: `{SPEED_COMMAND}` writes the file that its column is read from.\n"
    return (
        f"Speed is of one core ({speeds.cpu}), the model alone, its memory full: 1,000 series, frames of ten ticks, "
        f"CPU time, best of several rounds; measured by `{SPEED_COMMAND}`.\n"
    )


def _overview(models: dict[str, Model], speeds: Speeds, accuracies: Accuracies) -> list[str]:
    family_of = {kind: family for family, kinds in FAMILIES.items() for kind in kinds}
    rows = [
        (
            f"[`{kind}`](#{kind})",
            family_of[kind].lower(),
            _title(_file_of(model)),
            f"{model.warmup:,}",
            f"{model.state_bytes_per_series:,}",
            speeds.of(kind),
            accuracies.mean(kind),
        )
        for kind, model in models.items()
    ]
    head = (
        "Kind",
        "Family",
        "What it asks or measures",
        "Warm-up",
        "Bytes a series",
        "Readings/s/core",
        "VUS-PR",
    )
    return table(head, rows)


def _chapter(kind: str, model: Model, speeds: Speeds, accuracies: Accuracies) -> Iterator[str]:
    file = _file_of(model)
    yield f"### {kind}\n"
    yield f"*{_title(file)}*\n"
    yield from _prose(kind, file)
    speed = f", {speeds.of(kind)} readings/s/core" if kind in speeds.readings_per_s_core else ""
    yield f"Warm-up {model.warmup:,} readings, {model.state_bytes_per_series:,} bytes a series{speed}.\n"
    if by_set := accuracies.by_set(kind):
        yield f"VUS-PR on [labelled data](../accuracy.md): {by_set}.\n"
    yield from field_table(PARAMETERS[kind])
    yield f"```yaml\n{snippet(kind)}```\n"


def _file_of(model: Model) -> ModuleType:
    return sys.modules[type(model).__module__]


def _title(file: ModuleType) -> str:
    """The docstring's first line without the kind's own name before it."""
    line = (file.__doc__ or "").split("\n", maxsplit=1)[0]
    line = re.sub(r"^`\w+`: ", "", line)
    return line[:1].upper() + line[1:]


def _prose(kind: str, file: ModuleType) -> Iterator[str]:
    """The docstring after its first line as paragraphs; where it fails begins one of its own."""
    _, _, text = (file.__doc__ or "").partition("\n")
    text = text.replace(FAILS, f"\n\n**{FAILS}**")
    text = re.sub(r"`([A-Z][A-Z0-9_]*)`", lambda found: _constant(file, found[1]), text)
    text = re.sub(r"`([a-z_]+)`", lambda found: _linked(kind, file, found[1]), text)
    for paragraph in re.split(r"\n\s*\n", text):
        items = re.split(r"\n(?=- )", paragraph.strip())
        lines = [" ".join(item.split()) for item in items]
        if lines != [""]:
            yield "\n".join(lines) + "\n"


def _constant(file: ModuleType, name: str) -> str:
    """The value of a constant that a docstring names: of its file, or of those of the models that it takes from."""
    if name in vars(file):
        return _number(vars(file)[name])
    sources = {getattr(value, "__module__", None) for value in vars(file).values()}
    files = [sys.modules[source] for source in sources if source and source.startswith("tidewarden.models.")]
    values = {vars(other)[name] for other in files if name in vars(other)}
    if len(values) != 1:
        found = f"{len(values)} values" if values else "nothing"
        raise ValueError(
            f"the docstring of {file.__name__} names `{name}`, for which there is {found}: define it there"
        )
    return _number(values.pop())


def _number(value: Any) -> str:
    return f"{value:,g}"


def _linked(kind: str, file: ModuleType, name: str) -> str:
    """A name in a docstring: a parameter as YAML calls it; a link to another kind or file; or as it is."""
    parameter = PARAMETERS[kind].model_fields.get(name)
    if name == kind or parameter is not None:
        return f"`{name if parameter is None else parameter.alias or name}`"
    if name in PARAMETERS:
        return f"[`{name}`](#{name})"
    if (Path(file.__file__ or "").parent / f"{name}.py").exists():
        return f"[`{name}`](../../tidewarden/models/{name}.py)"
    return f"`{name}`"
