"""Resource files → validated resources; every mistake in every file is found and reported together.

Kubernetes ignores or prunes what it does not know; in a file an unknown field is a typing mistake, so
here it is an error. A file that loads here is also accepted by a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tidewarden.resources import (
    AlertPolicy,
    AnomalyDetector,
    AnyResource,
    MetricSimulation,
    MetricStream,
)
from tidewarden.resources.anomalydetector import parse_budget
from tidewarden.resources.base import API_VERSION, parse_duration
from tidewarden.resources.documents import SUFFIXES, Document, Problem, read_documents
from tidewarden.resources.likeness import did_you_mean
from tidewarden.resources.references import check_references
from tidewarden.resources.schema import Field, field_at, fields_of
from tidewarden.resources.wording import dotted, explain, show

KINDS: dict[str, type[AnyResource]] = {
    "MetricStream": MetricStream,
    "MetricSimulation": MetricSimulation,
    "AnomalyDetector": AnomalyDetector,
    "AlertPolicy": AlertPolicy,
}
_METADATA_OF_CLUSTERS = {
    "uid", "resourceVersion", "generation", "managedFields", "selfLink", "finalizers", "ownerReferences",
    "deletionTimestamp", "deletionGracePeriodSeconds", "generateName",
}  # fmt: skip
_SHOWN = 50  # problems printed; a wrong file can have thousands


class ResourceError(ValueError):
    """Mistakes in resource files; ``problems`` has them all, in the order of the files and lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        lines = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"… and {len(self.problems) - _SHOWN} more")
        super().__init__("\n".join(lines))


@dataclass(slots=True)
class Bundle:
    """The resources of one run, in the order in which the files name them."""

    streams: list[MetricStream] = field(default_factory=list)
    simulations: list[MetricSimulation] = field(default_factory=list)
    detectors: list[AnomalyDetector] = field(default_factory=list)
    policies: list[AlertPolicy] = field(default_factory=list)
    base_dirs: dict[tuple[str, str, str], Path] = field(default_factory=dict)

    def base_dir_of(self, resource: AnyResource) -> Path:
        """The folder of the file that ``resource`` came from; its relative paths start there."""
        return self.base_dirs[_identity(resource)]

    def add(self, resource: AnyResource, base_dir: Path) -> None:
        """Take one more resource in."""
        match resource:
            case MetricStream():
                self.streams.append(resource)
            case MetricSimulation():
                self.simulations.append(resource)
            case AnomalyDetector():
                self.detectors.append(resource)
            case AlertPolicy():
                self.policies.append(resource)
        self.base_dirs[_identity(resource)] = base_dir


def load(paths: Sequence[Path]) -> Bundle:
    """Read YAML and JSON files, or folders of them, into validated resources.

    A file may hold several documents, a list or a ``kind: List``. Of a folder, the files that end in
    .yaml, .yml or .json are read in the order of their names, not those in folders below it.

    Raises:
        ResourceError: with every mistake found, as ``file:line: Kind/name path: message``.
    """
    problems: list[Problem] = []
    documents = [document for file in _files(paths, problems) for document in read_documents(file, problems)]
    if not documents and not problems:
        names = ", ".join(str(path) for path in paths) or "no path"
        problems.append(Problem(names, None, f"no resources found: write one of {', '.join(KINDS)}"))
    bundle = Bundle()
    origins: dict[tuple[str, str, str], Document] = {}
    incomplete = bool(problems)
    for document in documents:
        resource = _parse(document, problems)
        if resource is None:
            incomplete = True
            continue
        known = origins.get(_identity(resource))
        if known is not None:
            first = f"{known.file}:{known.line_of(('metadata', 'name'))}"
            message = f"{resource.metadata.name!r} is already taken, in {first}: rename or remove one of them"
            problems.append(_problem(document, ("metadata", "name"), message))
            continue
        origins[_identity(resource)] = document
        bundle.add(resource, document.base_dir)
    problems += [
        _problem(origins[_identity(finding.resource)], finding.path, finding.message)
        for finding in check_references(
            bundle.streams, bundle.simulations, bundle.detectors, bundle.policies, incomplete=incomplete
        )
    ]
    if problems:
        order = {document.file: position for position, document in reversed(list(enumerate(documents)))}
        raise ResourceError(sorted(problems, key=lambda p: (order.get(p.file, len(order)), p.file, p.line or 0)))
    return bundle


def _files(paths: Sequence[Path], problems: list[Problem]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(f for f in path.iterdir() if f.suffix in SUFFIXES and f.is_file())
            if not found:
                problems.append(Problem(str(path), None, f"the folder has no {', '.join(SUFFIXES)} file: add one"))
            files += found
        elif path.exists():
            files.append(path)
        else:
            problems.append(Problem(str(path), None, "no such file or folder: check the path"))
    return list(dict.fromkeys(files))


def _parse(document: Document, problems: list[Problem]) -> AnyResource | None:
    """The resource of one document, or None after adding what is wrong with it."""
    value = document.value
    if not isinstance(value, dict):
        message = f"{show(value)} is not a resource: a mapping with apiVersion, kind, metadata and spec is needed"
        problems.append(Problem(document.file, document.line_of(()), message))
        return None
    before = len(problems)
    kind = value.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        message = "is missing: write one of " if "kind" not in value else f"{show(kind)} is not one of "
        hint = did_you_mean(kind, KINDS) if "kind" in value else ""
        problems.append(_problem(document, ("kind",), f"{message}{', '.join(KINDS)}{hint}"))
    if value.get("apiVersion") != API_VERSION:
        given = f"{show(value['apiVersion'])} is unknown" if "apiVersion" in value else "is missing"
        problems.append(_problem(document, ("apiVersion",), f"{given}: write {API_VERSION}"))
    if model is None:
        return None
    _check_strictly(model, value, (), document, problems)
    try:
        resource = model.model_validate({**value, "apiVersion": API_VERSION})
    except ValidationError as error:
        taken = {(p.line, p.path) for p in problems[before:]}
        for details in error.errors(include_url=False):
            path = tuple(part for part in details["loc"] if part != "[key]")
            message = explain(details, field_at(model, path), document.text_of(path))
            problem = _problem(document, path, message)
            if (problem.line, problem.path) not in taken:
                problems.append(problem)
        return None
    return resource if len(problems) == before else None


def _check_strictly(
    model: type[BaseModel],
    value: dict[Any, Any],
    path: tuple[str | int, ...],
    document: Document,
    problems: list[Problem],
) -> None:
    """What a cluster would refuse or drop but pydantic takes: unknown fields, and numbers for durations."""
    known = fields_of(model)
    for name, item in value.items():
        if name in known:
            _check_field(known[name], item, (*path, name), document, problems)
        elif not (path == ("metadata",) and name in _METADATA_OF_CLUSTERS) and not (path == () and name == "status"):
            hint = did_you_mean(name, known) or f": remove it; there are {', '.join(known)}"
            problems.append(_problem(document, (*path, str(name)), f"there is no such field{hint}"))


def _check_field(
    field: Field, value: Any, path: tuple[str | int, ...], document: Document, problems: list[Problem]
) -> None:
    nested = field.model
    items: list[tuple[tuple[str | int, ...], Any]] = [(path, value)]
    if field.is_list and isinstance(value, list):
        items = [((*path, position), item) for position, item in enumerate(value)]
    elif field.is_mapping and isinstance(value, dict):
        items = [((*path, str(key)), item) for key, item in value.items()]
    for at, item in items:
        if nested is not None and isinstance(item, dict):
            _check_strictly(nested, item, at, document, problems)
        if field.parser is not None and isinstance(item, (int, float)) and not isinstance(item, bool):
            text = document.text_of(at) or str(item)
            if field.parser is parse_duration:
                message = f"{text} has no unit: write {text}s, {text}m or {text}h if that is meant"
                if not text.isdigit():
                    message = f"{text} is not a duration: write a number and a unit, as in 5m or 1h30m"
            else:
                message = f"{text} has no period: write {text}/day if that is meant"
            assert field.parser in {parse_duration, parse_budget}
            problems.append(_problem(document, at, message))


def _problem(document: Document, path: Sequence[str | int], message: str) -> Problem:
    return Problem(document.file, document.line_of(path), message, _subject(document.value), dotted(path))


def _subject(value: Any) -> str:
    kind = value.get("kind")
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{kind if isinstance(kind, str) else 'resource'}/{name if isinstance(name, str) else '?'}"


def _identity(resource: AnyResource) -> tuple[str, str, str]:
    return resource.kind, resource.metadata.namespace, resource.metadata.name
