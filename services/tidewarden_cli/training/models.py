"""``tidewarden models``: what the registry has, and who is the champion."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidewarden_cli.offline.score import clear_errors
from tidewarden_cli.training.train import RegistryAddress, clear_failures

if TYPE_CHECKING:
    from tidewarden.registry.manifest import Manifest
    from tidewarden.registry.registry import Reference, Registry


class Action(StrEnum):
    """What to do."""

    list = "list"
    show = "show"
    diff = "diff"
    promote = "promote"
    rollback = "rollback"


def models(
    action: Annotated[Action, typer.Argument(help="What to do.")],
    detector: Annotated[str | None, typer.Argument(help="AnomalyDetector; `list` takes all without it.")] = None,
    version: Annotated[
        str | None, typer.Argument(help="Number, champion or latest. `show`: champion, or latest without one.")
    ] = None,
    other: Annotated[str | None, typer.Argument(help="`diff`: the version to compare with; default: latest.")] = None,
    registry: RegistryAddress = "models",
    note: Annotated[str, typer.Option(help="`promote`, `rollback`: why, for the history.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List, compare, promote and roll back the trained versions of detectors' models.

    The champion is the version that detectors with spec.training.from: champion begin with. A promotion and
    a rollback are kept in the history; a rollback takes back the last promotion that was not taken back yet.

    Exit code 0: done; 1: the registry cannot be reached or is damaged; 2: there is no such detector or version.

    Examples:

      tidewarden models list

      tidewarden models show shop-latency champion --json

      tidewarden models diff shop-latency champion 4

      tidewarden models promote shop-latency 4 --note "finds the outage of May"

      tidewarden models rollback shop-latency --registry "s3://models/shop?endpoint=http://minio:9000"
    """
    from tidewarden.registry.opening import open_registry

    with clear_errors(), clear_failures():
        _act(open_registry(registry), action, detector, version, other, note, as_json=as_json)


def _act(
    registry: Registry,
    action: Action,
    detector: str | None,
    version: str | None,
    other: str | None,
    note: str,
    *,
    as_json: bool,
) -> None:
    from tidewarden.clock import SystemClock

    if action is Action.list:
        _list(registry, [detector] if detector else registry.detectors(), as_json=as_json)
        return
    name, now_ms = _needed(detector, action, "a detector's name"), SystemClock().now_ms()
    if action is Action.show:
        _show(registry, name, version, as_json=as_json)
    elif action is Action.diff:
        before = registry.resolve(name, reference_of(_needed(version, action, "a version to compare")))
        _diff(before, registry.resolve(name, reference_of(other or "latest")), as_json=as_json)
    elif action is Action.promote:
        wanted = registry.resolve(name, reference_of(_needed(version, action, "the version to promote")))
        _moved(name, registry.promote(name, wanted.version, now_ms, note), as_json=as_json)
    else:
        _moved(name, registry.rollback(name, now_ms, note), as_json=as_json)


def _list(registry: Registry, detectors: list[str], *, as_json: bool) -> None:
    from rich.console import Console

    from tidewarden_cli.training.showing import list_table

    found = {name: [registry.manifest(name, number) for number in registry.versions(name)] for name in detectors}
    if as_json:
        _print({n: {"aliases": registry.aliases(n), "versions": versions} for n, versions in found.items()})
        return
    if not any(found.values()):
        typer.echo(f"{registry.address}: no version yet: train one with `tidewarden train`")
    for name, versions in found.items():
        if versions:
            Console().print(list_table(name, versions, registry.aliases(name)))


def _show(registry: Registry, detector: str, version: str | None, *, as_json: bool) -> None:
    from rich.console import Console

    from tidewarden_cli.training.showing import as_yaml, manifest_table, time_of

    aliases = registry.aliases(detector)
    manifest = registry.resolve(
        detector, reference_of(version or ("latest" if aliases.champion is None else "champion"))
    )
    if as_json:
        _print(manifest)
        return
    console = Console()
    console.print(manifest_table(manifest, champion=manifest.version == aliases.champion))
    console.print(as_yaml({"model": manifest.model}), highlight=False)
    for move in aliases.history:
        if manifest.version in {move.version, move.previous}:
            told = f"{time_of(move.at_ms)} {move.action}: {_champion(move.previous)} → {_champion(move.version)}"
            console.print(f"{told}{f' ({move.note})' if move.note else ''}", highlight=False)


def _diff(before: Manifest, after: Manifest, *, as_json: bool) -> None:
    from rich.console import Console

    from tidewarden_cli.training.showing import diff_table, fields_of

    if as_json:
        first, second = dict(fields_of(before)), dict(fields_of(after))
        names = [name for name in dict.fromkeys([*first, *second]) if first.get(name) != second.get(name)]
        _print({name: [first.get(name), second.get(name)] for name in names})
        return
    Console().print(diff_table(before, after))


def _moved(detector: str, aliases: Any, *, as_json: bool) -> None:
    if as_json:
        _print(aliases)
        return
    move = aliases.history[-1]
    typer.echo(f"{detector}: champion {_champion(move.previous)} → {_champion(aliases.champion)}")


def _champion(version: int | None) -> str:
    return "none" if version is None else str(version)


def _print(value: Any) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())


def _needed(given: str | None, action: Action, what: str) -> str:
    from tidewarden_cli.offline.reading import InputError

    if given is None:
        raise InputError(f"models {action.value}: {what} is missing: see `tidewarden models --help`")
    return given


def reference_of(text: str) -> Reference:
    """The version that somebody wrote."""
    from tidewarden_cli.offline.reading import InputError

    if text == "champion":
        return "champion"
    if text == "latest":
        return "latest"
    if not text.isdigit():
        raise InputError(f"{text!r} is no version: write its number, champion or latest")
    return int(text)
