"""The page of the commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum
from importlib import import_module
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from typer.models import ArgumentInfo, ParameterInfo

from tidewarden_cli.reference.markdown import NOTE, table


def cli_page() -> str:
    """Every command with its arguments and options, from the functions' signatures.

    Not from the click commands that typer makes of them: their inner life differs from version to version.
    """
    from tidewarden_cli.main import COMMANDS

    lines = [NOTE, "# Commands\n", "`tidewarden COMMAND --help` says the same.\n"]
    for name, (module, function, _) in COMMANDS.items():
        lines += _command(name, getattr(import_module(module), function))
    return "\n".join(lines)


def _command(name: str, run: Callable[..., Any]) -> Iterator[str]:
    parameters = [_Parameter.of(p) for p in inspect.signature(run, eval_str=True).parameters.values()]
    shown = [parameter for parameter in parameters if not parameter.hidden]
    usage = [parameter.name for parameter in shown if not parameter.is_option]
    if any(parameter.is_option for parameter in shown):
        usage.insert(0, "[OPTIONS]")
    yield f"## tidewarden {name}\n"
    yield f"```\ntidewarden {' '.join([name, *usage])}\n```\n"
    yield from _prose(inspect.getdoc(run) or "")
    rows = [(f"`{p.name}`", p.kind, p.default, p.text) for p in shown]
    if rows:
        yield from table(("Argument or option", "Type", "Default", "What it does"), rows)


class _Parameter(NamedTuple):
    name: str
    is_option: bool
    kind: str
    default: str
    text: str
    hidden: bool

    @classmethod
    def of(cls, parameter: inspect.Parameter) -> _Parameter:
        annotation, *notes = get_args(parameter.annotation) if _is_annotated(parameter) else (parameter.annotation,)
        info = next((n for n in notes if isinstance(n, ParameterInfo)), None)
        is_option = not isinstance(info, ArgumentInfo)
        kind = _kind(annotation)
        if is_option:
            # Within Annotated, typer keeps the first declaration where a default would stand.
            given = (getattr(info, "default", None), *(getattr(info, "param_decls", None) or ()))
            declared = [word for word in given if isinstance(word, str) and word.startswith("-")]
            name = ", ".join(declared or [f"--{parameter.name.replace('_', '-')}"])
        else:
            name = getattr(info, "metavar", None) or parameter.name.upper()
        bounds = (("≥", getattr(info, "min", None)), ("≤", getattr(info, "max", None)))
        limits = [f"{sign} {limit:,}" for sign, limit in bounds if limit is not None]
        text = " ".join((getattr(info, "help", None) or "").split())
        return cls(
            name, is_option, ", ".join([kind, *limits]), _shown_default(parameter.default), text,
            bool(getattr(info, "hidden", False)),
        )  # fmt: skip


def _is_annotated(parameter: inspect.Parameter) -> bool:
    return get_origin(parameter.annotation) is Annotated


def _kind(annotation: Any) -> str:
    options = [option for option in get_args(annotation) if option is not type(None)]
    if get_origin(annotation) is list:
        return f"{_kind(options[0])}, several"
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{option}`" for option in options)
    if options:
        return _kind(options[0])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    return {bool: "flag", str: "text", int: "integer", float: "number"}.get(annotation, "path")


def _shown_default(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "*required*"
    if default is None or default is False or default == []:
        return ""
    return f"`{default.value if isinstance(default, Enum) else default}`"


def _prose(text: str) -> Iterator[str]:
    """A docstring as Markdown; lines that are set in, or marked for click to leave alone, are code."""
    code: list[str] = []
    for part in [*text.split("\n\n"), ""]:
        as_it_is = re.match(r"(\\b|\x08)\n", part)
        if as_it_is or part.startswith("  "):
            code.append(inspect.cleandoc(part[as_it_is.end() :] if as_it_is else part))
            continue
        if code:
            yield "```\n{}\n```\n".format("\n".join(code))
            code = []
        if part:
            yield " ".join(part.replace("``", "`").split()) + "\n"
