"""How every client of ours reaches Kafka: address, login, certificates, and what is said when that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException

from tidewarden.bus.port import BusClosedError
from tidewarden.settings import KafkaSettings

# Topics take what the largest record can be: 10,000 scores of series that are all new to the reader, that is
# 10,000 × (62 bytes of columns + 120 bytes of name) = 1.8 MB before compression, four times over.
MESSAGE_MAX_BYTES = 8 * 1024 * 1024
REQUEST_TIMEOUT_S = 10.0  # for one answer of a broker that is there
PATIENCE_S = 120.0  # for a broker that is not: its restart takes 5 to 60 s, and so does a failover
_AGAIN_S = 0.1

# What the exactness of the pipeline rests on; `options` must not change it.
_FIXED = {
    "acks",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "message.timeout.ms",
    "partition.assignment.strategy",
    "request.required.acks",
    "transactional.id",
}
_NEVER_HEALS = {
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}

_PASSING = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._NOENT,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._UNKNOWN_PARTITION,  # the client has not heard of it yet, or has forgotten it while nobody answered
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._WAIT_COORD,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_CONTROLLER,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_LEADER_EPOCH,  # what the client has heard of a topic made just now is news to its leader
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # a topic that was made just now, on a broker that has not heard of it
}
_T = TypeVar("_T")

log = structlog.get_logger()


class KafkaUnavailableError(ConnectionError):
    """Kafka does not answer, or not to us: says which address, why, and the remedy."""


class Connection:
    """The settings that all clients share, and the newest trouble that any of them had.

    Args:
        settings: address and credentials; files are read here, so a changed password needs a new connection.
        client_id: how the broker's logs and quotas name us.
        patience_s: how long a broker may be away before a question to it fails.
    """

    def __init__(self, settings: KafkaSettings, client_id: str, *, patience_s: float = PATIENCE_S) -> None:
        self.address = settings.bootstrap_servers
        self.closed = threading.Event()
        self.patience_s = patience_s
        self._config = {
            "bootstrap.servers": settings.bootstrap_servers,
            "client.id": client_id,
            "log_level": 0,  # connection troubles are told once, by `_note`
            # A broker that came back is found within a second; the default of 10 s would double an outage.
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "topic.metadata.refresh.interval.ms": 60_000,  # grown partitions are seen within a minute
            "message.max.bytes": MESSAGE_MAX_BYTES,
            **_security(settings),
        }
        self._options = _checked(settings.options)
        self._lock = threading.Lock()
        self._trouble: tuple[int, str] | None = None

    def config(
        self,
        on_fatal: Callable[[KafkaError], None] = lambda _: None,
        on_commit: Callable[..., None] | None = None,
        **own: Any,
    ) -> dict[str, Any]:
        """The settings of one client; ``own`` has underscores for dots, and yields to the user's options.

        ``on_fatal`` is told, in a thread that polls the client, what ends that client for good.
        """

        def on_error(error: KafkaError) -> None:
            self._note(error)
            if error.fatal() or error.code() == KafkaError._FATAL:
                on_fatal(error)

        callbacks: dict[str, Any] = {"error_cb": on_error}
        if on_commit is not None:
            callbacks["on_commit"] = on_commit
        mine = {name.replace("_", "."): value for name, value in own.items()}
        return {**self._config, **mine, **self._options, **callbacks}

    def failure(self, error: KafkaException | str, waited_s: float) -> KafkaUnavailableError:
        """What to raise where Kafka did not do what was asked within ``waited_s``."""
        told = error if isinstance(error, str) else error.args[0].str()
        with self._lock:
            trouble = self._trouble
        if trouble is not None and trouble[1] not in told:
            told = f"{told}; {trouble[1]}"
        remedy = (
            "check kafka.securityProtocol, kafka.saslMechanism and the files in kafka.secretDir"
            if trouble is not None and trouble[0] in _NEVER_HEALS
            else "check kafka.bootstrapServers, and that the brokers run"
        )
        return KafkaUnavailableError(f"Kafka at {self.address} gave no answer in {waited_s:.0f} s ({told}): {remedy}")

    def patiently(self, ask: Callable[[float], _T]) -> _T:
        """What ``ask`` returns, given a timeout in seconds; asked again while the broker is away.

        Raises `KafkaUnavailableError` when patience ends, or as soon as it is clear that waiting does not help (a wrong
        password, say), and `BusClosedError` when the connection is closed meanwhile.
        """
        began = time.monotonic()
        while True:
            try:
                answer = ask(min(REQUEST_TIMEOUT_S, self.patience_s))
            except KafkaException as error:
                waited_s = time.monotonic() - began
                code = error.args[0].code()
                # A login that fails while a broker starts may heal at once; one that fails for longer does not.
                hopeless = code in _NEVER_HEALS or (self._hopeless and waited_s >= REQUEST_TIMEOUT_S)
                if hopeless or waited_s >= self.patience_s or code not in _PASSING:
                    raise self.failure(error, waited_s) from error
            else:
                with self._lock:
                    self._trouble = None
                return answer
            if self.closed.wait(_AGAIN_S):
                raise BusClosedError("the bus was closed while Kafka was asked")

    @property
    def _hopeless(self) -> bool:
        with self._lock:
            return self._trouble is not None and self._trouble[0] in _NEVER_HEALS

    def _note(self, error: KafkaError) -> None:
        """Called by the clients' threads of ours that poll; each new kind of trouble is logged once."""
        with self._lock:
            known = self._trouble
            # "All brokers down" follows every trouble and says less.
            if error.code() == KafkaError._ALL_BROKERS_DOWN and known is not None:
                return
            self._trouble = (error.code(), error.str())
        if known is None or known[0] != error.code():
            log.warning("trouble with Kafka", address=self.address, error=error.str())


def _checked(options: Mapping[str, str]) -> dict[str, str]:
    refused = sorted(_FIXED & options.keys())
    if refused:
        raise ValueError(
            f"kafka.options.{refused[0]} is {options[refused[0]]!r}: leave it out, nothing would be exact any more"
        )
    return dict(options)


def _security(settings: KafkaSettings) -> dict[str, str]:
    found: dict[str, str] = {"security.protocol": settings.security_protocol}
    folder = settings.secret_dir
    if "SASL" in settings.security_protocol:
        if folder is None:
            raise ValueError(
                f"kafka.securityProtocol is {settings.security_protocol} and there is no kafka.secretDir: "
                "name the folder with the files username and password"
            )
        found["sasl.mechanisms"] = settings.sasl_mechanism
        found["sasl.username"] = _secret(folder, "username")
        found["sasl.password"] = _secret(folder, "password")
    if "SSL" in settings.security_protocol and folder is not None:
        for option, name in (
            ("ssl.ca.location", "ca.crt"),
            ("ssl.certificate.location", "tls.crt"),
            ("ssl.key.location", "tls.key"),
        ):
            if (folder / name).exists():
                found[option] = str(folder / name)
    return found


def _secret(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text().strip()
    except OSError as error:
        raise ValueError(
            f"kafka.secretDir: {folder / name}: {error.strerror}: the Secret needs the key {name}"
        ) from error
