"""Credentials: a folder with one file a key, as Kubernetes mounts a Secret.

Keys are read when they are needed, so that a Secret that is renewed needs no restart.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

MAX_KEY_BYTES = 1_048_576  # Kubernetes allows no larger Secret


class CredentialsError(ValueError):
    """A Secret is not there, or lacks a key: names both, and the remedy."""


def secret_folder(secrets_dir: Path | None, name: str, field: str) -> Path:
    """The folder of a Secret that a resource names.

    Args:
        secrets_dir: holds one folder for each Secret; None where the process was given none.
        name: of the Secret.
        field: that names it, for the error.
    """
    if secrets_dir is None:
        raise CredentialsError(f"{field} is {name!r}, but there is no folder of secrets: give one with --secrets-dir")
    folder = secrets_dir / name
    if not folder.is_dir():
        raise CredentialsError(
            f"{field} is {name!r}, but {folder} is no folder: create the Secret {name!r}, one file for each key"
        )
    return folder


def read_secret(folder: Path) -> dict[str, str]:
    """All keys of a Secret, without the line break that editors leave at the end."""
    keys: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():  # ..data: how Kubernetes swaps versions
            continue
        if path.stat().st_size > MAX_KEY_BYTES:
            raise CredentialsError(f"{path} has more than {MAX_KEY_BYTES} bytes: that is no key of a Secret")
        try:
            keys[path.name] = path.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise CredentialsError(f"{path} cannot be read ({error}): correct the Secret {folder.name!r}") from None
    return keys


def http_client(folder: Path | None, timeout_s: float) -> httpx.Client:
    """A client that logs in with a Secret: key token, or username and password; ca.crt for an authority of your own.

    Redirects are not followed, since they would carry the credentials elsewhere.
    """
    import ssl

    import httpx  # a seventh of a second that a start without it need not wait for

    class SecretAuth(httpx.Auth):
        """Reads the keys anew for each request."""

        def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
            assert folder is not None
            keys = read_secret(folder)
            if "token" in keys:
                request.headers["Authorization"] = f"Bearer {keys['token']}"
                yield request
            elif "username" in keys:
                yield from httpx.BasicAuth(keys["username"], keys.get("password", "")).auth_flow(request)
            else:
                yield request

    verify: ssl.SSLContext | bool = True
    if folder is not None and (folder / "ca.crt").is_file():
        verify = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    return httpx.Client(
        timeout=timeout_s,
        verify=verify,
        auth=None if folder is None else SecretAuth(),
        headers={"User-Agent": "tidewarden"},
        follow_redirects=False,
    )
