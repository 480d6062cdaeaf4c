"""``tidewarden feedback``: say that an anomaly was right or wrong, and see what was said so far."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import typer

TIMEOUT_S = 10.0
LIST = "list"


def feedback(
    anomaly: Annotated[str, typer.Argument(help="Id of the anomaly, or `list` for all that was said.")],
    verdict: Annotated[str | None, typer.Argument(help="right, wrong, or revoke: as if nothing was said.")] = None,
    note: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    by: Annotated[str | None, typer.Option(help="Who says so; default: your user name.")] = None,
    url: Annotated[str, typer.Option(help="Address of the API.")] = "http://127.0.0.1:8000",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="`list`: entries at most, the newest.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say that an anomaly was right or wrong, take that back, or list all that was said.

    After "wrong", people are alerted of an anomaly of that kind in that series only when it is rarer than the wrong
    one was; that bar sinks by half in 30 days. After three wrong ones within 60 days the kind is silent in that
    series. "right" takes back the latest wrong one. Scores do not change, and every anomaly is kept and shown.

    Exit code 0: done; 1: the API cannot be reached or has failed; 2: there is no such anomaly or verdict.

    Examples:

      tidewarden feedback 4c1f0e6a92d3b857 wrong --note "nightly backup"

      tidewarden feedback 4c1f0e6a92d3b857 revoke

      tidewarden feedback list --json --url http://127.0.0.1:8000
    """
    from tidewarden.events import VERDICTS

    if anomaly == LIST:
        if verdict is not None:
            _fail(2, f"list takes no verdict, {verdict!r} was given: write `tidewarden feedback list`")
        answer = _ask("GET", f"{url}/api/v1/feedback", params={"limit": limit})
        _print(answer, [_line(word) for word in answer["feedback"]] or ["nothing was said yet"], as_json=as_json)
        return
    if verdict not in VERDICTS:
        _fail(2, f"verdict {verdict!r}: write one of {', '.join(VERDICTS)} behind the anomaly's id")
    body = {"verdict": verdict, "by": by or getpass.getuser(), "note": note}
    answer = _ask("POST", f"{url}/api/v1/anomalies/{anomaly}/feedback", json=body)
    _print(answer, [_line(answer)], as_json=as_json)


def _ask(method: str, url: str, **more: Any) -> dict[str, Any]:
    import httpx

    try:
        response = httpx.request(method, url, timeout=TIMEOUT_S, **more)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _fail(1, f"{url} does not answer ({error}): start `tidewarden up`, or give the API's address as --url")
    try:
        answer: dict[str, Any] = response.json()
    except ValueError:
        _fail(1, f"{url} answers {response.status_code} and no JSON: --url must be the address of a Tidewarden API")
    if response.is_error:
        _fail(2 if response.is_client_error else 1, str(answer.get("detail", answer)))
    return answer


def _line(word: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(word["at_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    series = "/".join(word[name] for name in ("tenant", "cluster", "node", "metric"))
    note = f"  “{word['note']}”" if word["note"] else ""
    return f"{at}Z  {word['anomaly_id']}  {word['verdict']:6}  {word['kind']} of {series}  by {word['by']}{note}"


def _print(answer: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(answer).decode() if as_json else "\n".join(lines))


def _fail(code: int, message: str) -> NoReturn:
    typer.echo(f"tidewarden: {message}", err=True)
    raise typer.Exit(code)
