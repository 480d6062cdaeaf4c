"""Kafka with a log-in and with certificates, as Secrets bring them: a real broker that speaks both."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.kafka import KafkaServer
from tidewarden.bus.kafka.admin import TopicAdmin
from tidewarden.bus.kafka.bus import KafkaBus
from tidewarden.bus.kafka.connection import KafkaUnavailableError
from tidewarden.events import AnomalyBatch
from tidewarden.frames import SeriesTable
from tidewarden.settings import KafkaSettings
from tidewarden.topics import Topic

pytestmark = pytest.mark.kafka

USER, PASSWORD = "tidewarden", "correct horse"
TOPIC = "shop.orders.anomalies"


class Certificates:
    """An authority of our own, a server's certificate for 127.0.0.1 and a client's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = self._signed("authority", "/CN=Test authority")
        self.server = self._signed("server", "/CN=127.0.0.1", "subjectAltName=IP:127.0.0.1")
        self.client = self._signed("client", "/CN=client")
        # Kafka reads key and certificate from one PEM file.
        self.server_store = folder / "server.pem"
        self.server_store.write_text(self.key("server").read_text() + self.server.read_text())

    def key(self, name: str) -> Path:
        """The private key of a certificate, PKCS #8."""
        return self._folder / f"{name}.key"

    def _signed(self, name: str, subject: str, extension: str | None = None) -> Path:
        certificate = self._folder / f"{name}.crt"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject]
        command += ["-keyout", str(self.key(name)), "-out", str(certificate)]
        if name != "authority":
            command += ["-CA", str(self._folder / "authority.crt"), "-CAkey", str(self.key("authority"))]
        if extension is not None:
            command += ["-addext", extension]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return certificate


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("certificates are made by openssl, which is not on the PATH")
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(
    kafka_jars: Path, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaServer]:
    """A broker that asks for a SCRAM or PLAIN log-in on one port, and for a client's certificate on another."""
    plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
    settings = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "listener.name.sasl_ssl.plain.sasl.jaas.config": plain,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": certificates.server_store,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": certificates.authority,
        "listener.name.ssl.ssl.client.auth": "required",
    }
    server = KafkaServer(
        kafka_jars,
        tmp_path_factory.mktemp("guarded"),
        listeners=["SASL_SSL", "SSL"],
        settings=settings,
        scram=f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]",
    )
    server.start()
    yield server
    server.stop()


def secret(folder: Path, **files: str | Path) -> Path:
    """A folder as Kubernetes mounts a Secret; ``__`` stands for the dot of a key."""
    folder.mkdir()
    for name, content in files.items():
        text = content.read_text() if isinstance(content, Path) else content
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def round_trip(settings: KafkaSettings, topic: str) -> int:
    """Make a topic, write to it, read it back."""
    TopicAdmin(settings).apply([Topic(topic, 1)])
    bus = KafkaBus(settings, SeriesTable(), client_id="test", namespace="shop")
    try:
        bus.publish(topic, AnomalyBatch(detector="d", anomalies=[], watermarks={"shop": 7}), key="shop")
        bus.sync()
        consumer = bus.consumer([topic], "reader")
        records = consumer.poll(10, 20)
        consumer.close()
        return int(records[0].value.watermarks["shop"])
    finally:
        bus.close()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_log_in_over_tls_with_the_files_of_a_secret(
    guarded: KafkaServer, certificates: Certificates, tmp_path: Path, mechanism: str
) -> None:
    """User, password and authority from a Secret's files are all that a broker with SASL_SSL needs of us."""
    folder = secret(tmp_path / "kafka", username=USER, password=PASSWORD + "\n", ca__crt=certificates.authority)
    settings = KafkaSettings(
        bootstrap_servers=guarded.addresses["SASL_SSL"],
        security_protocol="SASL_SSL",
        sasl_mechanism=mechanism,
        secret_dir=folder,
    )
    assert round_trip(settings, f"{TOPIC}.{mechanism}") == 7


def test_a_wrong_password_is_said_with_its_remedy_and_soon(
    guarded: KafkaServer, certificates: Certificates, tmp_path: Path
) -> None:
    """Nobody waits out an outage's patience for a password that will never be right."""
    folder = secret(tmp_path / "kafka", username=USER, password="wrong", ca__crt=certificates.authority)
    settings = KafkaSettings(
        bootstrap_servers=guarded.addresses["SASL_SSL"], security_protocol="SASL_SSL", secret_dir=folder
    )
    with pytest.raises(KafkaUnavailableError, match=r"kafka\.secretDir"):
        TopicAdmin(settings).apply([Topic(f"{TOPIC}.refused", 1)])


def test_a_certificate_of_ours_where_the_broker_asks_for_one(
    guarded: KafkaServer, certificates: Certificates, tmp_path: Path
) -> None:
    """tls.crt and tls.key of a Secret are shown to a broker that wants to know who we are."""
    folder = secret(
        tmp_path / "kafka",
        ca__crt=certificates.authority,
        tls__crt=certificates.client,
        tls__key=certificates.key("client"),
    )
    settings = KafkaSettings(bootstrap_servers=guarded.addresses["SSL"], security_protocol="SSL", secret_dir=folder)
    assert round_trip(settings, f"{TOPIC}.mutual") == 7


def test_an_authority_that_is_not_known_is_not_trusted(guarded: KafkaServer, tmp_path: Path) -> None:
    """Without ca.crt a broker with a certificate of its own making is refused, and the message says where to put it."""
    folder = secret(tmp_path / "kafka", username=USER, password=PASSWORD)
    settings = KafkaSettings(
        bootstrap_servers=guarded.addresses["SASL_SSL"], security_protocol="SASL_SSL", secret_dir=folder
    )
    with pytest.raises(KafkaUnavailableError, match=r"kafka\.secretDir"):
        TopicAdmin(settings).apply([Topic(f"{TOPIC}.untrusted", 1)])
