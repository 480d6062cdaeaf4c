"""The example plug-in, really installed: chosen by kind, built, scored with, restored, refused where it is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidewarden
from servers.processes import free_ports
from servers.roles import RESOURCES, Roles
from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.models.registry import build, kinds
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.resources.loader import ResourceError, load
from tidewarden.resources.models import ModelSpec, at_defaults
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from tidewarden_cli.warm import fleet
from tidewarden_operator.reconcile.context import Mistake, parse

ROOT = Path(__file__).resolve().parents[2]
INTERVAL_MS = 60_000
JUMP = {"kind": "jump", "parameters": {"halfLife": 120, "warmup": 100}}
HEAD = "apiVersion: tidewarden.dev/v1alpha1\n"
STREAM = HEAD + "kind: MetricStream\nmetadata: {name: shop}\nspec: {tenants: [shop]}\n"
DETECTOR = "---\n" + HEAD + "kind: AnomalyDetector\nmetadata: {name: steps}\nspec:\n  stream: shop\n  model: %s\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has installed the distribution of docs/plug-in, with its dist-info, and nothing else."""
    target = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command = [*install, "--target", str(target), str(ROOT / "docs" / "plug-in")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (target / "tidewarden_jump-1.0.0.dist-info" / "entry_points.txt").exists()
    return target


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder on the path of this process, and of those that it starts."""
    monkeypatch.syspath_prepend(str(folder))
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return folder


def _distribution(folder: Path, name: str, kind: str, target: str, code: str = "") -> None:
    """Another distribution as an installer leaves it: dist-info beside a module."""
    info = folder / f"{name}-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(f"[tidewarden.models]\n{kind} = {target}\n")
    if code:
        (folder / f"{target.partition(':')[0]}.py").write_text(code)


def _spec(model: dict[str, Any]) -> AnomalyDetectorSpec:
    return AnomalyDetectorSpec.model_validate({"stream": "shop", "model": model})


def _walk(n: int, jump_at: int) -> np.ndarray:
    """A random walk that jumps once, by twenty of its steps."""
    steps = np.random.default_rng(3).normal(0, 1, n)
    steps[jump_at] += 20.0
    return 500 + steps.cumsum()


def _score(scorer: Scorer, table: SeriesTable, value: np.ndarray, first: int = 0) -> Any:
    n = len(value)
    series = table.ids_of([SeriesKey("shop", "c", "n", "m")] * n)
    timestamp = (first + np.arange(n, dtype=np.int64)) * INTERVAL_MS
    return scorer.score(Frame(table, series, timestamp, value))


def _problems(text: str, folder: Path) -> str:
    file = folder / "shop.yaml"
    file.write_text(STREAM + DETECTOR % text)
    with pytest.raises(ResourceError) as refused:
        load([file])
    return str(refused.value)


@pytest.mark.usefixtures("installed")
def test_an_installed_plug_in_scores_through_the_scorer() -> None:
    """Chosen by its kind it finds the jump of a walk, calibrated like any model, and a snapshot goes on to the bit."""
    assert "jump" in kinds()
    config = ScorerConfig("steps", "shop", _spec(JUMP), INTERVAL_MS, INTERVAL_MS)
    value, jump_at, cut = _walk(3_000, 2_600), 2_600, 1_500
    table = SeriesTable()
    whole = Scorer(config, table)
    assert whole.model_version == "jump/1"
    before = _score(whole, table, value[:cut])
    state = whole.snapshot()
    after = _score(whole, table, value[cut:], cut)
    learning = before.scores.p_value == 1.0
    assert learning[:100].all(), "it learns for as many readings as its parameters say"
    assert not learning[100:].all()
    assert int(np.argmin(after.scores.p_value)) == jump_at - cut
    assert {anomaly.onset for anomaly in after.anomalies} == {jump_at * INTERVAL_MS}
    again = SeriesTable()
    resumed = Scorer(config, again)
    resumed.restore(state)
    said = _score(resumed, again, value[cut:], cut).scores
    for column in ("anomaly_score", "p_value", "expected", "lower", "upper"):
        assert getattr(said, column).tobytes() == getattr(after.scores, column).tobytes(), column
    other = Scorer(ScorerConfig("steps", "shop", _spec(JUMP | {"parameters": {}}), INTERVAL_MS), SeriesTable())
    with pytest.raises(ValueError, match="taken with parameters"):
        other.restore(state)


@pytest.mark.usefixtures("installed")
def test_it_can_be_a_member_of_an_ensemble() -> None:
    """With its own parameters, beside kinds that are built in."""
    members = [{"kind": "ewma", "ewma": {"warmup": 30}}, JUMP]
    model = build(ModelSpec.model_validate({"kind": "ensemble", "ensemble": {"members": members}}), (), INTERVAL_MS)
    assert model.warmup == 100


@pytest.mark.usefixtures("installed")
def test_it_keeps_the_contract_of_all_models() -> None:
    """The contract suite takes up whatever is installed: here all that it asks of any kind, at the defaults."""
    suite = ["-q", "-p", "no:cacheprovider", "tests/contract/test_models.py", "-k", "jump"]
    command = [sys.executable, "-m", "pytest", *suite]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.split(" passed")[0].split()[-1]) >= 14, done.stdout


@pytest.mark.usefixtures("installed")
def test_files_choose_it_and_it_is_warmed(tmp_path: Path) -> None:
    """The strict loader keeps its parameters as they are, and the fleet of the warm-up has a detector of it."""
    file = tmp_path / "shop.yaml"
    file.write_text(STREAM + DETECTOR % "{kind: jump, parameters: {halfLife: 90}}")
    [detector] = load([file]).detectors
    assert detector.spec.model.parameters == {"halfLife": 90}
    assert at_defaults("jump") == {"kind": "jump", "parameters": {}}
    file.write_text(fleet(kinds()))
    assert "jump" in {one.spec.model.kind for one in load([file]).detectors}


def test_the_command_scores_a_file_with_it(installed: Path, tmp_path: Path) -> None:
    """`tidewarden score --model jump` as a process of its own; without the plug-in it is a mistake that says so."""
    value = _walk(1_500, 1_200)
    source = tmp_path / "walk.csv"
    source.write_text("value\n" + "\n".join(map(str, value)) + "\n")
    command = [sys.executable, "-m", "tidewarden_cli.main", "score", str(source), "--model", "jump"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    head, *rows = (line.split(",") for line in done.stdout.splitlines())
    p_value = [float(row[head.index("p_value")] or "nan") for row in rows]
    assert int(np.nanargmin(p_value)) == 1_200
    paths = os.environ["PYTHONPATH"].removeprefix(str(installed)).removeprefix(os.pathsep)
    bare = {**os.environ, "PYTHONPATH": paths}
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=bare)
    assert refused.returncode == 2
    assert "--model jump: 'jump' is not one of auto, density" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unknown_kind_names_those_known(installed: Path, tmp_path: Path) -> None:
    """In a file with its line, by the operator's condition, and by the registry; a slip of the pen gets a hint."""
    text = _problems("{kind: jumpp, parameters: {}}", tmp_path)
    assert "shop.yaml:11: AnomalyDetector/steps spec.model.kind: 'jumpp' is not one of auto, density" in text
    assert text.endswith("ensemble, jump: did you mean 'jump'?")
    assert _problems("{kind: holt-winters}", tmp_path).endswith("did you mean 'holt_winters'?")
    far = _problems("{kind: prophet, parameters: {}}", tmp_path)
    assert far.endswith("ensemble, jump: correct it, or install the plug-in that brings it where this runs")
    metadata = {"name": "steps", "namespace": "team"}
    body = {"apiVersion": "tidewarden.dev/v1alpha1", "kind": "AnomalyDetector", "metadata": metadata}
    mistake = parse(body | {"spec": {"stream": "shop", "model": {"kind": "prophet", "parameters": {}}}})
    assert isinstance(mistake, Mistake)
    assert mistake.message.startswith("spec.model.kind: 'prophet' is not one of auto")
    stranger = ModelSpec.model_validate({}).model_copy(update={"kind": "prophet", "parameters": {}})
    with pytest.raises(ValueError, match=r"'prophet', which is not known; choose one of ar, auto, .*, jump,"):
        build(stranger, (), INTERVAL_MS)
    assert installed.exists()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("{kind: jump}", "spec.model: kind 'jump' is a plug-in's: it needs model.parameters, {} for its defaults"),
        (
            "{kind: mad, parameters: {halfLife: 9}}",
            "spec.model: model.parameters is set but kind is 'mad', which is built in: write model.mad instead",
        ),
        ("{kind: jump, parameters: {}, mad: {}}", "spec.model: model.mad is set but kind is 'jump'"),
        ("{kind: jump, parameters: 3}", "spec.model.parameters: 3 does not fit: a mapping of names to values"),
        ("{kind: jump, parameters: {since: 2026-01-31}}", "spec.model.parameters.since:"),
        (
            "{kind: ensemble, ensemble: {members: [{}, {kind: jump}]}}",
            "spec.model.ensemble.members[1]: kind 'jump' is a plug-in's: it needs member.parameters",
        ),
        (
            "{kind: ensemble, ensemble: {members: [{}, {kind: ensemble}]}}",
            "spec.model.ensemble.members[1].kind: 'ensemble' cannot be a member of an ensemble",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(model: str, says: str, tmp_path: Path) -> None:
    """A plug-in's kind has parameters, and no other kind has; what they are no file checks."""
    assert says in _problems(model, tmp_path)


@pytest.mark.usefixtures("installed")
def test_parameters_that_it_refuses_are_named() -> None:
    """With field, bound and kind, before anything runs: for a model, and for a member."""
    with pytest.raises(ValueError, match=r"^model\.parameters\.halfLife of kind 'jump': .* greater than 0"):
        build(_spec({"kind": "jump", "parameters": {"halfLife": -1}}).model, (), INTERVAL_MS)
    members = [{"kind": "ewma"}, {"kind": "jump", "parameters": {"half": 1}}]
    spec = _spec({"kind": "ensemble", "ensemble": {"members": members}})
    with pytest.raises(ValueError, match=r"^member\.parameters\.half of kind 'jump': Extra inputs"):
        build(spec.model, (), INTERVAL_MS)


@pytest.mark.usefixtures("installed")
def test_a_pod_and_the_laptop_end_at_wrong_parameters(tmp_path: Path) -> None:
    """`tidewarden run detect` and `tidewarden up`: exit code 2 and one sentence, before anything runs."""
    wrong = "{kind: jump, parameters: {warmup: 3}}"
    says = "model.parameters.warmup of kind 'jump': Input should be greater than or equal to 10"
    file = tmp_path / "shop.yaml"
    file.write_text(STREAM + DETECTOR % wrong)
    command = [sys.executable, "-m", "tidewarden_cli.main", "up", "-f", str(file), "--headless", "--exit-when-done"]
    up = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (up.returncode, "Traceback" in up.stderr) == (2, False), up.stderr
    assert f"AnomalyDetector/steps: {says}" in up.stderr
    resources = RESOURCES.replace("NAMESPACE", "one").replace("WEBHOOK", "http://127.0.0.1:9/").replace("SPEED", "0")
    (closed,) = free_ports(1)
    own = (DETECTOR % wrong).replace("{name: steps}", "{name: steps, namespace: one}")
    roles = Roles(tmp_path / "roles", resources + own, f"127.0.0.1:{closed}", f"http://127.0.0.1:{closed}", "one")
    pod = roles.add("steps", "detect", "--name", "steps", "--member", "steps-0")
    roles.write_settings()
    try:
        pod.start()
        assert pod.process is not None
        assert pod.process.wait(60) == 2, pod.log
        assert pod.last_words["error"] == f"AnomalyDetector/steps: {says}"
    finally:
        roles.close()


def test_plug_ins_that_cannot_be_trusted_are_named(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that does not import, that makes no model, and a kind that two distributions bring."""
    _distribution(tmp_path, "broken", "cracked", "cracked_model:build", "import a_library_that_is_not_there\n")
    _distribution(tmp_path, "empty", "hollow", "hollow_model:build", "def build(*_):\n    return 7\n")
    _distribution(tmp_path, "twin", "jump", "another_jump:build")
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind, says in (
        (
            "cracked",
            r"'cracked', broken 2\.0 \(cracked_model:build\), cannot be loaded \(ModuleNotFoundError: .*install",
        ),
        ("hollow", r"'hollow', empty 2\.0 \(hollow_model:build\), made int: it must make a tidewarden"),
        ("jump", r"'jump' is brought by tidewarden-jump 1\.0\.0 .* and twin 2\.0 .*: uninstall all but one"),
    ):
        with pytest.raises(ValueError, match=says):
            build(ModelSpec.model_validate(at_defaults(kind)), (), INTERVAL_MS)
    assert installed != tmp_path


@pytest.mark.usefixtures("installed")
def test_a_kind_that_is_built_in_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that calls its kind like one of ours changes nothing and is not even imported."""
    _distribution(tmp_path, "usurper", "ewma", "usurper_model:build", "raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert build(ModelSpec.model_validate({"kind": "ewma"}), (), INTERVAL_MS).kind == "ewma"
    assert kinds().count("ewma") == 1


@pytest.mark.usefixtures("installed")
def test_python_takes_a_plug_in_by_name() -> None:
    """`tidewarden.score(…, model="jump")` is the plug-in at its defaults."""
    assert int(np.nanargmin(tidewarden.score(_walk(1_500, 1_200), model="jump").p_value)) == 1_200
