"""Resource files as text: documents with the line of every field, and where they are not YAML or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 16 * 1024 * 1024  # 10,000 resources of 1 KB and then some; a data file given by mistake is larger


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, and a message with the value and the remedy."""

    file: str
    line: int | None
    message: str
    resource: str = ""  # Kind/name, as far as they are known
    path: str = ""  # dotted, as the user writes it: spec.alerting.minDeviation

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        subject = " ".join(part for part in (self.resource, self.path) if part)
        return f"{place}: {subject}: {self.message}" if subject else f"{place}: {self.message}"


@dataclass(slots=True, eq=False)
class Document:
    """One document of a file: its plain value, and the nodes behind it for line numbers and raw text."""

    file: str
    base_dir: Path
    value: Any
    node: yaml.Node

    def line_of(self, path: Sequence[str | int]) -> int:
        """Line of the field at ``path``, or of the nearest part of it that exists; 1-based."""
        return self._find(path)[0]

    def text_of(self, path: Sequence[str | int]) -> str | None:
        """The scalar at ``path`` as it is written, without quotes; None where there is none."""
        node = self._find(path)[1]
        return node.value if isinstance(node, yaml.ScalarNode) else None

    def _find(self, path: Sequence[str | int]) -> tuple[int, yaml.Node | None]:
        node, line = self.node, _line(self.node)
        for part in path:
            if isinstance(node, yaml.MappingNode):
                found = next(((k, v) for k, v in node.value if getattr(k, "value", None) == str(part)), None)
                if found is None:
                    return line, None
                line, node = _line(found[0]), found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = _line(node)
            else:
                return line, None
        return line, node


def read_documents(file: Path, problems: list[Problem]) -> list[Document]:
    """The documents of one file; what cannot be read is added to ``problems``."""
    text = _read_text(file, problems)
    if text is None:
        return []
    if file.suffix == ".json":
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            message = f"this is not JSON: {error.msg} at column {error.colno}: correct it, or name the file .yaml"
            problems.append(Problem(str(file), error.lineno, message))
            return []
        text = text.replace("\t", " ")  # YAML refuses tabs; in valid JSON they are never part of a value
    try:
        return list(_documents(file, text, problems))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f" at column {mark.column + 1}"
        what = " ".join(part for part in (error.problem, error.context) if part)
        message = f"this is not YAML: {what}{where}: check the indentation, colons and quotes there"
        problems.append(Problem(str(file), None if mark is None else mark.line + 1, message))
    except yaml.YAMLError as error:
        problems.append(Problem(str(file), None, f"this is not YAML: {error}: save it as UTF-8 text"))
    except ValueError as error:  # a date such as 2024-13-45
        problems.append(Problem(str(file), None, f"a value cannot be read ({error}): correct it or put it in quotes"))
    except RecursionError:
        problems.append(Problem(str(file), None, "lists or mappings are nested too deeply: a resource has ten levels"))
    return []


def _documents(file: Path, text: str, problems: list[Problem]) -> Iterator[Document]:
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                continue
            _refuse_repeated_keys(node, str(file), problems, set())
            value = loader.construct_document(node)
            if value is None:
                continue
            if isinstance(value, dict) and value.get("kind") == "List" and isinstance(value.get("items"), list):
                items = next(v for k, v in node.value if k.value == "items")
                pairs = zip(value["items"], items.value, strict=True)
            elif isinstance(value, list):
                pairs = zip(value, node.value, strict=True)
            else:
                pairs = zip([value], [node], strict=True)
            for item, item_node in pairs:
                yield Document(str(file), file.parent, item, item_node)
    finally:
        loader.dispose()


def _refuse_repeated_keys(node: yaml.Node, file: str, problems: list[Problem], seen: set[int]) -> None:
    """YAML would silently take the last of several equal keys; an alias is looked at once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, file, problems, seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in lines and key.value != "<<":
                first = lines[key.value]
                message = f"{key.value!r} is given twice, first in line {first}: remove one of them"
                problems.append(Problem(file, _line(key), message))
            lines.setdefault(str(key.value), _line(key))
            _refuse_repeated_keys(value, file, problems, seen)


def _read_text(file: Path, problems: list[Problem]) -> str | None:
    try:
        if file.stat().st_size > MAX_BYTES:
            message = f"the file has {file.stat().st_size} bytes, at most {MAX_BYTES} are read: is it a resource file?"
            problems.append(Problem(str(file), None, message))
            return None
        data = file.read_bytes()
    except OSError as error:
        problems.append(Problem(str(file), None, f"cannot be read ({error.strerror}): check the path and permissions"))
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8 text"
        problems.append(Problem(str(file), line, message))
        return None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
