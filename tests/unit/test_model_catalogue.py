"""The catalogue of models says of every kind what its code says, and of speed only what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks import bench_models
from benchmarks.report import Result
from benchmarks.speed import cpu_name, write_speeds
from tidewarden.models.registry import build, kinds
from tidewarden.resources.loader import load
from tidewarden.resources.models import PARAMETERS
from tidewarden.resources.schema import walk
from tidewarden_cli.reference import FOLDER, models
from tidewarden_cli.reference.measured import SPEED_COMMAND
from tidewarden_cli.reference.models import FAILS, FAMILIES, docstring_of, models_page, snippet, spec_of

ROOT = Path(__file__).resolve().parents[2]
STREAM = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop}
spec: {tenants: [shop], sources: [{name: push, http: {}}]}
"""


@pytest.fixture(scope="module")
def page() -> str:
    return models_page()


def chapter(page: str, kind: str) -> str:
    """What stands between a kind's heading and the next one."""
    found = re.search(rf"^### {kind}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{kind} has no chapter"
    return found[1]


def row(page: str, kind: str) -> list[str]:
    """The cells of a kind's row in the table of all."""
    found = re.search(rf"^\| \[`{kind}`\]\(#{kind}\) \|(.*)\|$", page, re.MULTILINE)
    assert found is not None, f"{kind} has no row"
    return [cell.strip() for cell in found[1].split(" | ")]


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_the_registry_has_a_row_a_chapter_and_says_where_it_fails(kind: str, page: str) -> None:
    """The words after "Where it fails:" in its docstring are on the page, and are more than a word or two."""
    first, _, after = docstring_of(kind).partition(FAILS)
    assert first.startswith(f"`{kind}`: "), f"the docstring of {kind} must begin with its name"
    assert len(after.split("\n\n")[0].split()) >= 5, f"the docstring of {kind} must have a sentence {FAILS!r}"
    assert f"**{FAILS}** {after.split()[0]} " in chapter(page, kind)
    assert len(row(page, kind)) == 6


def test_every_kind_has_one_family(page: str) -> None:
    listed = [kind for family in FAMILIES.values() for kind in family]
    assert sorted(listed) == sorted(PARAMETERS)
    assert re.findall(r"^### (\w+)$", page, re.MULTILINE) == listed


def test_a_kind_without_a_family_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new kind cannot be left out of the page by mistake."""
    monkeypatch.setitem(PARAMETERS, "brand_new", PARAMETERS["pca"])
    with pytest.raises(ValueError, match="'brand_new' has no family: add it to FAMILIES"):
        models_page()


@pytest.mark.parametrize("kind", kinds())
def test_the_snippet_on_the_page_loads_as_a_detector_at_the_defaults(kind: str, page: str, tmp_path: Path) -> None:
    """The strict loader takes it, and what it builds is what a block that is not there builds."""
    found = re.search(r"```yaml\n(.*?)```", chapter(page, kind), re.DOTALL)
    assert found is not None
    (tmp_path / "all.yaml").write_text(f"{STREAM}---\n{found[1]}")
    (detector,) = load([tmp_path]).detectors
    assert detector.spec.model.kind == kind
    assert detector.spec.model.block == spec_of(kind).model.block
    assert found[1] == snippet(kind)


@pytest.mark.parametrize("kind", PARAMETERS)
def test_every_parameter_is_in_its_chapter(kind: str, page: str) -> None:
    missing = [path for path, _ in walk(PARAMETERS[kind]) if f"\n| `{path}` |" not in chapter(page, kind)]
    assert missing == []


@pytest.mark.parametrize("kind", kinds())
def test_warm_up_and_memory_are_those_of_the_model_as_built(kind: str, page: str) -> None:
    """Bytes a series are within a tenth of what the arrays of 200 more series take."""
    spec = spec_of(kind)
    model = build(spec.model, spec.seasonality, 60_000)
    model.resize(100)
    few = sum(array.nbytes for array in model.snapshot().values())
    model.resize(300)
    taken = (sum(array.nbytes for array in model.snapshot().values()) - few) / 200
    _, _, warmup, memory, *_ = row(page, kind)
    assert int(warmup.replace(",", "")) == model.warmup
    assert int(memory.replace(",", "")) == pytest.approx(taken, rel=0.1)


def test_names_of_constants_are_told_as_their_values(page: str) -> None:
    """Nobody who reads the page knows what `BOUND` is."""
    assert re.findall(r"`[A-Z][A-Z_]+`", page) == []
    assert "as if it were at most 4 deviations away" in chapter(page, "ewma")
    assert "halve their counts every 6,000 readings" in chapter(page, "density"), "a constant of the kernel's file"


def test_a_constant_that_no_file_defines_is_refused() -> None:
    file = ModuleType("tidewarden.models.fake", "`fake`: x.\n\nAt most `NOWHERE` of them.")
    with pytest.raises(ValueError, match="names `NOWHERE`, for which there is nothing: define it there"):
        list(models._prose("pca", file))


def test_links_lead_somewhere(page: str) -> None:
    """To a heading of the page itself, or to a file beside it."""
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in page.splitlines() if line.startswith("#")}
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert {target[1:] for target in targets if target.startswith("#")} <= headings
    files = {target.partition("#")[0] for target in targets if not target.startswith("#")}
    assert [file for file in files if not (ROOT / FOLDER / file).exists()] == []
    assert "(models.md)" in (ROOT / FOLDER / "resources.md").read_text("utf-8")


def test_a_speed_that_was_not_measured_is_a_dash(tmp_path: Path) -> None:
    """Without the files the page says how speed is measured, and no figure stands in the columns."""
    page = models_page(tmp_path)
    assert {tuple(row(page, kind)[-2:]) for kind in PARAMETERS} == {("–", "–")}
    assert "VUS-PR on" not in page
    assert f"Speed was not measured yet: `{SPEED_COMMAND}`" in page


def test_speeds_as_the_benchmark_writes_them_are_on_the_page_as_measured(tmp_path: Path) -> None:
    """Those of the model alone, with three digits; a kind that was not measured keeps its dash."""
    file = tmp_path / "speed.json"
    results = [
        Result("model", "ewma", 123_456_789.4, "readings/s/core"),
        Result("model", "knn", 51_234.0, "readings/s/core"),
        Result("scorer", "mad", 9_999.0, "readings/s/core"),
    ]
    write_speeds(results, file)
    assert json.loads(file.read_text("utf-8"))["readings_per_s_core"] == {"ewma": 123_456_789, "knn": 51_234}
    page = models_page(tmp_path)
    assert [row(page, kind)[-2] for kind in ("ewma", "knn", "mad")] == ["123,000,000", "51,200", "–"]
    assert f"measured by `{SPEED_COMMAND}`" in page
    assert cpu_name() in page
    assert "51,200 readings/s/core" in chapter(page, "knn")


def test_accuracy_is_that_of_the_table_beside_it(tmp_path: Path) -> None:
    """Means over files of what is shipped; who was not measured on all sets has no mean over them."""
    rows = [
        ("asd", "ewma", "shipped", 0.2), ("asd", "ewma", "shipped", 0.4), ("asd", "ewma", "metrics only", 0.9),
        ("nab", "ewma", "shipped", 0.5), ("nab", "ewma", "shipped", None), ("nab", "mad", "shipped", 0.75),
    ]  # fmt: skip
    lines = [json.dumps({"set": s, "model": m, "variant": v, "vus_pr": value}) for s, m, v, value in rows]
    (tmp_path / "accuracy.jsonl").write_text("\n".join(lines) + "\n")
    page = models_page(tmp_path)
    assert [row(page, kind)[-1] for kind in ("ewma", "mad", "knn")] == [".40", "–", "–"]
    assert "VUS-PR on [labelled data](../accuracy.md): asd .30, nab .50.\n" in chapter(page, "ewma")
    assert "nab .75." in chapter(page, "mad")
    assert "VUS-PR" not in chapter(page, "knn")


def test_the_processor_is_called_as_linux_calls_it(tmp_path: Path) -> None:
    """And by what Python knows where there is no such file."""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Abacus 9000\n")
    assert cpu_name(tmp_path / "cpuinfo") == "Abacus 9000"
    assert cpu_name(tmp_path / "absent")


@pytest.mark.parametrize("kind", ["static", "ewma"])
def test_a_benchmark_measures_models_whose_memory_is_full(kind: str) -> None:
    """Every series starts from what one of those that were warmed remembers, and the model takes that state."""
    state = bench_models.grown(kind)
    model = build(bench_models.spec_of(kind).model, (86_400_000,), 60_000)
    model.restore(state)
    model.resize(bench_models.SERIES)
    for name, array in model.snapshot().items():
        if len(array) == 1:
            assert array[0] == bench_models.SERIES, "the number of series is all that static remembers"
            continue
        assert np.array_equal(array, state[name])
        assert np.array_equal(array[25], array[5])
        assert not np.array_equal(array[5], array[6])
