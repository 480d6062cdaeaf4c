"""The CRDs without a server: structural, complete, the same each time, and in step with the models."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from tidewarden.resources.base import DURATION_PATTERN, format_duration, parse_duration
from tidewarden.resources.crd import custom_resource_definition, to_yaml
from tidewarden.resources.crd.columns import SHOWN
from tidewarden.resources.crd.files import CHART, chart_templates, manifests
from tidewarden.resources.crd.rules import FIELD_RULES, RULES, milliseconds
from tidewarden.resources.loader import KINDS
from tidewarden.resources.metricsimulation import BUILT_IN_METRICS
from tidewarden.resources.models import PARAMETERS, ModelKind, ModelSpec
from tidewarden.resources.schema import fields_of, walk
from tidewarden.resources.status import STATUSES
from tidewarden_simulator.signals import BUILT_IN

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "type", "description", "properties", "required", "items", "additionalProperties", "default", "enum", "format",
    "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems", "minLength",
    "maxLength", "maxProperties", "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip


def _schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = custom_resource_definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, with the path of its field."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from _nodes(part, f"{path}.{name}")
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from _nodes(schema[key], path + suffix)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_is_structural(kind: str) -> None:
    """Every part has a type; there are no references, unions, nulls, titles, or fields that nobody declared."""
    for path, node in _nodes(_schema(kind)):
        assert set(node) <= ALLOWED, path
        assert node["type"] in {"object", "array", "string", "integer", "number", "boolean"}, path
        assert isinstance(node.get("exclusiveMinimum", True), bool), path
        assert node["type"] != "array" or "items" in node, path
        assert not {"properties", "additionalProperties"} <= set(node), path


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_the_models_is_in_the_schema_with_its_description(kind: str) -> None:
    nodes = dict(_nodes(_schema(kind)))
    for model, prefix in ((fields_of(KINDS[kind])["spec"].model, ".spec"), (STATUSES[kind], ".status")):
        assert model is not None
        for path, _ in walk(model):
            assert nodes[f"{prefix}.{path}".removesuffix("[]")]["description"], path


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_is_the_same_each_time_and_reads_back(kind: str) -> None:
    definition = custom_resource_definition(kind)
    assert to_yaml(definition) == to_yaml(custom_resource_definition(kind))
    assert yaml.safe_load(to_yaml(definition)) == definition
    assert "&id" not in to_yaml(definition), "anchors are for machines"


def test_every_model_with_a_validator_has_a_rule() -> None:
    """What pydantic checks over several fields, CEL checks, too; red means: add the rule in resources/crd/rules.py."""

    def models(model: type[BaseModel]) -> set[type[BaseModel]]:
        nested = [field.model for field in fields_of(model).values() if field.model is not None]
        return {model}.union(*(models(one) for one in nested))

    everything = set().union(*(models(model) for model in KINDS.values()))
    checked = {m for m in everything if m.__pydantic_decorators__.model_validators}
    assert checked
    assert checked <= set(RULES)
    assert set(RULES) <= everything


@pytest.mark.parametrize("kind", KINDS)
def test_the_columns_show_fields_that_there_are(kind: str) -> None:
    nodes = dict(_nodes(_schema(kind)))
    for column in SHOWN[kind].columns:
        path = column.path.split("[?")[0].replace("[0]", "[]")
        assert path.startswith(".metadata") or path in nodes, column.name
        assert column.type in {nodes.get(path, {}).get("type"), "date", "string"}, column.name


def test_the_same_fields_cannot_be_changed_in_all_kinds() -> None:
    """All that name a stream keep it for life."""
    specs = {fields_of(model)["spec"].model for kind, model in KINDS.items() if kind != "MetricStream"}
    assert {model for model, field in FIELD_RULES if field == "stream"} == specs


def test_the_built_in_metrics_are_those_of_the_simulator() -> None:
    assert set(BUILT_IN_METRICS) == set(BUILT_IN)


def test_the_longest_duration_can_be_added_up_by_the_server() -> None:
    """CEL has 64-bit integers: the largest text that the pattern and the length allow stays below 2⁶³ ms."""
    largest = "999999999w" * 3
    assert len(largest) <= 32
    assert parse_duration(largest) < 2**63
    assert len(format_duration(parse_duration(largest))) <= 32
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration("1000000000w")
    assert "{1,9}" in DURATION_PATTERN
    assert all(unit in milliseconds("self") for unit in ("'ms': 1,", "'s': 1000,", "'w': 604800000"))


def test_the_chart_holds_the_same_definitions() -> None:
    """Apart from the annotations that its values decide; and nothing else in it is for Helm to read."""
    for name, render in chart_templates().items():
        kept = [line for line in render().splitlines() if "{{" not in line]
        plain = yaml.safe_load("\n".join(kept))
        assert plain["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert plain == yaml.safe_load(manifests()[name]())


def test_the_chart_passes_helms_own_checks_and_its_switch_works() -> None:
    """`helm lint --strict`, and `helm template` with the kinds kept or not."""
    if shutil.which("helm") is None:
        pytest.skip("needs helm on the PATH")
    chart = str(ROOT / CHART)
    lint = subprocess.run(["helm", "lint", "--strict", chart], check=False, capture_output=True, text=True, timeout=60)
    assert lint.returncode == 0, lint.stdout + lint.stderr
    for keep, expected in (("true", {"helm.sh/resource-policy": "keep"}), ("false", None)):
        command = ["helm", "template", "kinds", chart, "--set", f"keep={keep}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        definitions = list(yaml.safe_load_all(done.stdout))
        assert {d["spec"]["names"]["kind"] for d in definitions} == set(KINDS)
        assert [d["metadata"].get("annotations") for d in definitions] == [expected] * len(KINDS)
    wrong = ["helm", "template", "kinds", chart, "--set", "keepp=true"]
    refused = subprocess.run(wrong, check=False, capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0
    assert "keepp" in refused.stderr


def test_a_block_of_parameters_is_named_like_its_kind() -> None:
    """Also in YAML, where other fields are in camel case: `kind: holt_winters` has the block `holt_winters`."""
    blocks = set(ModelSpec.model_json_schema()["properties"]) - {"kind", "parameters"}
    assert blocks == set(get_args(ModelKind)) == set(PARAMETERS)


def test_only_the_parameters_of_plugins_are_free() -> None:
    """Of all that the schemas have, the server keeps what it does not know in these maps alone, of 64 names at most."""
    free = {
        path: node["maxProperties"]
        for kind in KINDS
        for path, node in _nodes(_schema(kind))
        if "x-kubernetes-preserve-unknown-fields" in node
    }
    models = (".spec.model", ".spec.candidate.model")
    assert free == {f"{model}{of}.parameters": 64 for model in models for of in ("", ".ensemble.members[]")}
