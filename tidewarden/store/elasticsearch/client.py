"""The wire: one client with our patience, our words for what went wrong, and bulk writes that lose nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from elastic_transport import ConnectionTimeout, TlsError, TransportError
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError
from elasticsearch.serializer import JsonSerializer

from tidewarden.clock import Clock
from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.port import StoreError, StoreUnavailableError

# A reading takes about 300 bytes of bulk body and a score 500, so 5 MB are 10,000 to 17,000 documents: about half a
# second of one node. The server's own limit is 100 MB; it buffers a body whole, so smaller is kinder.
BULK_BYTES = 5_000_000
# 0.1 + 0.2 + 0.4 + 0.8 + 1.6 = 3.1 s of waiting over six attempts, then the archive is told and waits by its own rules.
ATTEMPTS = 6
FIRST_WAIT_S = 0.1
# Half a second of work for an idle node; a minute is a node that drowns, and asking again would drown it further.
TIMEOUT_S = 60.0
CONNECTIONS = 10  # as many readers at once; the API's own threads are fewer
BUSY: Final = frozenset({429, 502, 503, 504})
VERSIONS: Final = ("8", "9")  # what the client 8.x can talk to
_NDJSON: Final = {"Content-Type": "application/x-ndjson", "Accept": "application/json"}
_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class Operation(NamedTuple):
    """One line of a bulk body and the document behind it; ``document`` is None for a deletion."""

    action: bytes
    document: bytes | None

    @property
    def body(self) -> bytes:
        """As the server wants it."""
        return self.action + b"\n" if self.document is None else self.action + b"\n" + self.document + b"\n"


class Refused(NamedTuple):
    """An operation that the server will never take, and why."""

    operation: Operation
    reason: str


class _Json(JsonSerializer):
    """Answers of 10,000 hits are parsed three times as fast."""

    def json_loads(self, data: bytes) -> Any:
        return msgspec.json.decode(data)


class Client:
    """Speaks with one Elasticsearch.

    Args:
        settings: address and the folder with the credentials.
        clock: waits between attempts.
    """

    def __init__(self, settings: ElasticsearchSettings, clock: Clock) -> None:
        self.url = settings.url
        self._clock = clock
        self._closing = threading.Event()  # ends waiting between attempts
        self._checked = False
        try:
            self._client = Elasticsearch(
                settings.url,
                **_credentials(settings),
                serializers={"application/json": _Json()},
                request_timeout=TIMEOUT_S,
                max_retries=0,  # we know better what may be repeated, and for how long
                connections_per_node=CONNECTIONS,
            )
        except ValueError as error:
            raise StoreError(f"elasticsearch.url {settings.url!r}: {error}; write http://host:9200, say") from error

    def close(self) -> None:
        """Let go of the connections."""
        self._closing.set()
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        missing: Any = None,
        attempts: int = ATTEMPTS,
    ) -> Any:
        """The server's answer; ``missing`` where it is 404.

        Raises:
            StoreUnavailableError: it is away, slow or busy after all attempts.
            StoreError: it refuses: credentials, product, version, or the request itself.
        """
        self._check()
        return self._patiently(method, path, body, params, missing, attempts)

    def status(self, method: str, path: str) -> tuple[int, Any]:
        """Status and answer, whatever they are; for asking what the server can do.

        Raises:
            StoreUnavailableError: there is no answer.
        """
        self._check()
        for attempt in range(ATTEMPTS):
            try:
                answer = self._client.options(ignore_status=tuple(range(400, 500))).perform_request(
                    method, path, headers=_JSON
                )
                return answer.meta.status, answer.body
            except (ApiError, TransportError) as error:
                last = self._worth_another(error)
            self._wait(attempt)
        raise last

    def bulk(self, operations: Iterable[Operation]) -> list[Refused]:
        """Write all; what the server refuses for good comes back with its reason.

        An operation that met a newer version, or a document that was there already, counts as done: it is
        a repetition.

        Raises:
            StoreUnavailableError: not all could be written now. Writing all of them again is harmless.
            StoreError: the server refuses us as a whole.
        """
        self._check()
        refused: list[Refused] = []
        for chunk in _chunks(operations):
            refused += self._bulk(chunk)
        return refused

    def _bulk(self, operations: Sequence[Operation]) -> list[Refused]:
        refused: list[Refused] = []
        for attempt in range(ATTEMPTS):
            body = b"".join(operation.body for operation in operations)
            answer = self._patiently("POST", "/_bulk", body, None, None, ATTEMPTS)
            if not answer["errors"]:
                return refused
            again = []
            for operation, item in zip(operations, answer["items"], strict=True):
                (result,) = item.values()
                status = result["status"]
                if status in BUSY or status >= 500 or _is_full(result):
                    again.append(operation)
                    why = result.get("error")
                elif status >= 400 and status not in (404, 409):
                    refused.append(Refused(operation, _reason(result.get("error"))))
                elif status == 404 and operation.document is not None:
                    raise StoreError(f"{self.url} refuses to make an index: {_reason(result.get('error'))}; {_AUTO}")
            if not again:
                return refused
            operations = again
            self._wait(attempt)
        raise StoreUnavailableError(
            f"{self.url} is too busy: {len(operations)} documents wait after {ATTEMPTS} attempts ({_reason(why)})"
        )

    def _check(self) -> None:
        if self._checked:
            return
        answer = self._patiently("GET", "/", None, None, None, 1)
        number = str(answer.get("version", {}).get("number", "unknown"))
        if number.split(".", maxsplit=1)[0] not in VERSIONS:
            raise StoreError(f"{self.url} is Elasticsearch {number}; Tidewarden speaks with {' and '.join(VERSIONS)}")
        self._checked = True

    def _patiently(
        self, method: str, path: str, body: Any, params: Mapping[str, Any] | None, missing: Any, attempts: int
    ) -> Any:
        headers = _NDJSON if isinstance(body, bytes) else _JSON
        for attempt in range(attempts):
            try:
                return self._client.perform_request(method, path, params=params, headers=headers, body=body).body
            except ApiError as error:
                if error.status_code == 404:
                    return missing
                last = self._worth_another(error)
            except TransportError as error:
                last = self._worth_another(error)
            if attempt + 1 < attempts:
                self._wait(attempt)
        raise last

    def _worth_another(self, error: ApiError | TransportError) -> StoreUnavailableError:
        """The error to raise once patience ends; raises at once what no patience mends."""
        if isinstance(error, UnsupportedProductError):
            raise StoreError(f"{self.url} is no Elasticsearch: {error}; correct elasticsearch.url") from error
        if isinstance(error, ApiError):
            if error.status_code in BUSY or error.status_code >= 500:
                return StoreUnavailableError(f"{self.url} answers {error.status_code}: {_short(error)}")
            if error.status_code == 401:
                raise StoreError(f"{self.url} does not let us in (401): {_short(error)}; {_LOGIN}") from error
            if error.status_code == 403:
                raise StoreError(f"{self.url} forbids this (403): {_short(error)}; {_RIGHTS}") from error
            raise StoreError(f"{self.url} refuses ({error.status_code}): {_short(error)}") from error
        if isinstance(error, TlsError):
            raise StoreError(f"{self.url} cannot be trusted: {error}; {_TRUST}") from error
        slow = isinstance(error, ConnectionTimeout)
        return StoreUnavailableError(
            f"{self.url} does not answer{f' within {TIMEOUT_S:.0f} s' if slow else ''}: {error}"
        )

    def _wait(self, attempt: int) -> None:
        self._clock.wait(self._closing, FIRST_WAIT_S * 2**attempt)


_TRUST = "put the certificate of its CA as ca.crt into elasticsearch.secretDir"
_LOGIN = "check apiKey, or username and password, in elasticsearch.secretDir"
_RIGHTS = (
    "the user needs on <prefix>.* the index privileges create_index, index, delete, delete_index, read, "
    "view_index_metadata, manage, and the cluster privileges monitor, manage_index_templates, manage_ilm"
)
_AUTO = "action.auto_create_index of the server must allow <prefix>.*"


def _credentials(settings: ElasticsearchSettings) -> dict[str, Any]:
    folder = settings.secret_dir
    if folder is None:
        return {}
    if not folder.is_dir():
        raise StoreError(f"elasticsearch.secretDir {folder} is no folder: mount the Secret there, or leave it out")

    def content(name: str) -> str | None:
        path = folder / name
        return path.read_text().strip() if path.is_file() else None

    found: dict[str, Any] = {}
    key, user, password = content("apiKey"), content("username"), content("password")
    if key is not None:
        found["api_key"] = key
    elif user is not None and password is not None:
        found["basic_auth"] = (user, password)
    elif user is not None or password is not None:
        there, lacking = ("username", "password") if user is not None else ("password", "username")
        raise StoreError(f"elasticsearch.secretDir {folder} has {there} but no {lacking}: add the file {lacking}")
    if (folder / "ca.crt").is_file():
        found["ca_certs"] = str(folder / "ca.crt")
    return found


def _chunks(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    chunk: list[Operation] = []
    size = 0
    for operation in operations:
        length = len(operation.action) + len(operation.document or b"") + 2
        if chunk and size + length > BULK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(operation)
        size += length
    if chunk:
        yield chunk


def _is_full(result: Mapping[str, Any]) -> bool:
    """Whether a refusal is about room that somebody can make: too many shards, or a disk that is nearly full."""
    error = result.get("error") or {}
    kind, reason = error.get("type"), str(error.get("reason"))
    return (kind == "validation_exception" and "maximum" in reason) or kind == "cluster_block_exception"


def _reason(error: Any) -> str:
    if not isinstance(error, Mapping):
        return str(error)
    cause = error.get("caused_by")
    # A reason may quote the value it is about, of any length; the cause behind it is what helps.
    told = f"{error.get('type')}: {str(error.get('reason'))[:300]}"
    return f"{told} ({_reason(cause)})" if isinstance(cause, Mapping) else told


def _short(error: ApiError) -> str:
    body = error.body
    inner = body.get("error") if isinstance(body, Mapping) else None
    return _reason(inner if inner is not None else body)[:500]
