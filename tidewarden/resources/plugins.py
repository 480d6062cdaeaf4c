"""Kinds of models that other distributions bring: entry points in the group ``tidewarden.models``.

Only their names are looked at here, so that a resource can be checked without importing anybody's code;
`tidewarden.models.registry` loads and builds them. Nothing is kept between calls: a look costs milliseconds, and only
those pay for it who choose a kind that is not built in.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

GROUP = "tidewarden.models"


def plugged_in() -> list[str]:
    """Kinds that installed plug-ins bring, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def entry_point_of(kind: str) -> EntryPoint | None:
    """Where the plug-in of ``kind`` begins; None if none is installed.

    Raises:
        ValueError: several distributions bring the kind; which of them is meant nobody can know.
    """
    points = {point.value: point for point in entry_points(group=GROUP, name=kind)}
    if len(points) > 1:
        raise ValueError(
            f"model.kind {kind!r} is brought by {' and '.join(sorted(map(origin, points.values())))}: "
            "uninstall all but one"
        )
    return next(iter(points.values()), None)


def origin(point: EntryPoint) -> str:
    """The distribution of an entry point for people: name and version, and the object that it names."""
    home = point.dist
    return point.value if home is None else f"{home.name} {home.version} ({point.value})"
