"""Where a registry's files lie: a bucket of Amazon S3 or of a server that speaks its language.

The server must honour conditional writes (``If-None-Match: *`` and ``If-Match``), as Amazon S3, MinIO, Ceph,
Cloudflare R2 and Versity's gateway do; one that ignores them is noticed before anything is written.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from tidewarden.registry.objects import RegistryError, Stored

REQUEST_S = 30.0  # a state of 100 MB at 4 MB/s
CONNECT_S = 5.0
RETRIES = 4  # after 0.1, 0.2, 0.4, 0.8 s: a second and a half of a server that restarts
RETRY_S = 60.0  # of all tries together


class S3Objects:
    """A prefix of a bucket.

    Credentials come from where AWS clients look for them: the environment (``AWS_ACCESS_KEY_ID``, …), a web
    identity token as pods have it, or the machine's role.

    Args:
        bucket: an existing bucket.
        prefix: what every key begins with; may be empty.
        endpoint: URL of the server; None: Amazon's.
        region: of the bucket; None: the environment's, or us-east-1.
        credentials: access key and secret key instead of the environment's.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        try:
            from obstore.store import S3Store
        except ImportError:
            raise RegistryError("s3:// needs the extra s3: pip install 'tidewarden[s3]'") from None
        self._prefix = f"{prefix}/" if prefix else ""
        self.address = f"s3://{bucket}/{prefix}".rstrip("/") + (f"?endpoint={endpoint}" if endpoint else "")
        self._plain = f"s3://{bucket}/"
        given: dict[str, Any] = {"endpoint": endpoint, "region": region}
        if credentials is not None:
            given |= {"access_key_id": credentials[0], "secret_access_key": credentials[1]}
        self._store = S3Store(
            bucket,
            **{name: value for name, value in given.items() if value is not None},
            virtual_hosted_style_request=endpoint is None,
            client_options={
                "timeout": timedelta(seconds=REQUEST_S),
                "connect_timeout": timedelta(seconds=CONNECT_S),
                "allow_http": endpoint is not None and endpoint.startswith("http://"),
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
        )
        self._proved = False

    def get(self, key: str) -> Stored | None:
        """The object, or None where there is none."""
        import obstore

        with self._clear(key):
            try:
                answer = obstore.get(self._store, self._prefix + key)
                return Stored(bytes(answer.bytes()), str(answer.meta["e_tag"]))
            except FileNotFoundError:  # what obstore's NotFoundError is
                return None

    def create(self, key: str, data: bytes) -> bool:
        """Write a new object; false where the key is taken already."""
        self._prove()
        return self._create(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        """Write over the object that was read with this etag; false where it was changed since."""
        self._prove()
        return self._put(key, data, {"e_tag": etag})

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin with ``prefix``, sorted."""
        import obstore

        # A server lists by whole path segments only; the rest of the prefix is compared here.
        folder, _, _ = (self._prefix + prefix).rpartition("/")
        with self._clear(prefix):
            found = [str(item["path"]) for page in obstore.list(self._store, folder or None) for item in page]
        below = [path.removeprefix(self._prefix) for path in found if path.startswith(self._prefix)]
        return sorted(key for key in below if key.startswith(prefix) and "/" in key)

    def where(self, key: str) -> str:
        """The object's URL."""
        return f"{self._plain}{self._prefix}{key}"

    def _create(self, key: str, data: bytes) -> bool:
        return self._put(key, data, "create")

    def _put(self, key: str, data: bytes, mode: Any) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._clear(key):
            try:
                obstore.put(self._store, self._prefix + key, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                if mode == "create" and isinstance(error, FileNotFoundError):  # not the object: the bucket
                    raise
                # Perhaps the server did write, its answer was lost, and it was the retry that came too late.
                now = self.get(key)
                return now is not None and now.data == data
        return True

    def _prove(self) -> None:
        """Before the first write: the server refuses to write over what is there, when asked to."""
        if self._proved:
            return
        key = ".conditional-writes"
        self._create(key, b"This object shows that the server refuses to write over it.\n")
        if self._create(key, secrets.token_bytes(8)):
            raise RegistryError(
                f"{self.address}: the server ignores If-None-Match, so that two trainers could write over each other: "
                "use one with conditional writes, or a folder"
            )
        self._proved = True

    @contextmanager
    def _clear(self, key: str) -> Iterator[None]:
        """The client's errors, with address and key."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            told = str(error).split("\n", maxsplit=1)[0]
            raise RegistryError(
                f"{self.where(key)}: {told}: check address, credentials and that the bucket is there"
            ) from None
