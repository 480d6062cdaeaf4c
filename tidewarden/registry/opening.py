"""A registry from its address."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tidewarden.credentials import read_secret
from tidewarden.registry.objects import FolderObjects, RegistryError
from tidewarden.registry.registry import Registry

KEYS = ("access-key-id", "secret-access-key")  # of a Secret


def open_registry(address: str, base_dir: Path | None = None, secret: Path | None = None) -> Registry:
    """The registry at an address; nothing is read or written yet.

    Args:
        address: a folder, or ``s3://BUCKET/PREFIX``, for other servers than Amazon's with
            ``?endpoint=URL`` and, where it matters, ``&region=NAME``.
        base_dir: what a relative folder is relative to.
        secret: folder of a Secret with credentials for s3; None: those of the environment.
    """
    parts = urlsplit(address)
    if not parts.scheme or len(parts.scheme) == 1:
        return Registry(FolderObjects((base_dir or Path()) / address))
    if parts.scheme == "file":
        return Registry(FolderObjects(Path(parts.path)))
    if parts.scheme != "s3" or not parts.netloc:
        raise RegistryError(f"{address!r} is no registry: write a folder, or s3://BUCKET/PREFIX")
    options = parse_qs(parts.query, keep_blank_values=True)
    strangers = sorted(set(options) - {"endpoint", "region"})
    if strangers:
        raise RegistryError(f"{address!r} has an option {strangers[0]!r}: there are endpoint and region")
    from tidewarden.registry.s3 import S3Objects

    credentials = None
    if secret is not None:
        keys = read_secret(secret)
        missing = [key for key in KEYS if key not in keys]
        if missing:
            raise RegistryError(f"Secret {secret.name!r} lacks the key {missing[0]}: add it")
        credentials = (keys[KEYS[0]], keys[KEYS[1]])
    return Registry(
        S3Objects(
            parts.netloc,
            parts.path.strip("/"),
            endpoint=options.get("endpoint", [None])[0],
            region=options.get("region", [None])[0],
            credentials=credentials,
        )
    )
