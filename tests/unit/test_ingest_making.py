"""From a source's spec and its surroundings to the source: where addresses and credentials come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidewarden.bus.kafka.raw import client_config
from tidewarden.clock import ManualClock
from tidewarden.frames import SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.settings import KafkaSettings
from tidewarden.sources import CuttingSource, ReportingSource, Source
from tidewarden_services.ingest.making import Surroundings, _brokers, make_source

HERE = Surroundings(Path("."))


def stream(source: dict[str, Any], **spec: Any) -> MetricStream:
    return MetricStream.model_validate(
        {"metadata": {"name": "s"}, "spec": {"tenants": ["shop"], "sources": [{"name": "in", **source}], **spec}}
    )


def made(resource: MetricStream, around: Surroundings = HERE) -> Source:
    return make_source(resource, resource.spec.sources[0], SeriesTable(), ManualClock(), around)


@pytest.mark.parametrize(
    "source",
    [
        {"http": {}},
        {"file": {"path": "x.csv"}},
        {"kafka": {"topic": "t", "bootstrapServers": "127.0.0.1:9"}},
        {"prometheus": {"query": "up", "url": "http://127.0.0.1:9"}},
    ],
    ids=lambda source: next(iter(source)),
)
def test_every_kind_is_made_and_those_cut_by_chance_can_be_told_where(source: dict[str, Any]) -> None:
    """The kind is the spec's; kafka and prometheus end batches where they must; who may have to wait reports it."""
    found = made(stream(source))
    assert found.kind in source
    assert isinstance(found, CuttingSource) == (found.kind in ("kafka", "prometheus"))
    assert isinstance(found, ReportingSource) == (found.kind in ("kafka", "prometheus", "http"))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"kafka": {"topic": "t"}}, "kafka.bootstrapServers is absent"),
        ({"prometheus": {"query": "up"}}, "prometheus.url is absent"),
        (
            {"prometheus": {"query": "up", "url": "http://x", "secretRef": {"name": "login"}}},
            "prometheus.secretRef is 'login', but there is no folder of secrets: give one with --secrets-dir",
        ),
    ],
)
def test_what_is_absent_is_named(source: dict[str, Any], told: str) -> None:
    """The error names stream, source, field and remedy."""
    with pytest.raises(ValueError, match="MetricStream/s source 'in'") as caught:
        made(stream(source))
    assert told in str(caught.value)


def test_brokers_are_the_sources_own_else_the_processs_else_the_streams() -> None:
    """The nearest address wins."""
    around = Surroundings(Path("."), kafka=KafkaSettings(bootstrap_servers="process:9092"))
    of_stream = {"kafka": {"bootstrapServers": "stream:9092"}}
    own = stream({"kafka": {"topic": "t", "bootstrapServers": "own:9092"}}, **of_stream)
    bare = stream({"kafka": {"topic": "t"}}, **of_stream)
    for resource, where, expected in ((own, around, "own"), (bare, around, "process"), (bare, HERE, "stream")):
        spec = resource.spec.sources[0].kafka
        assert spec is not None
        assert _brokers(resource, spec, where).bootstrap_servers == f"{expected}:9092"


def test_a_password_is_never_sent_without_encryption_unless_the_stream_says_so(tmp_path: Path) -> None:
    """A Secret with a username means SASL_SSL; SASL_PLAINTEXT must be written into spec.kafka."""
    (tmp_path / "login").mkdir()
    (tmp_path / "login" / "username").write_text("u\n")
    (tmp_path / "login" / "password").write_text("p\n")
    around = Surroundings(tmp_path, secrets_dir=tmp_path)
    source = {"kafka": {"topic": "t", "bootstrapServers": "own:9092", "secretRef": {"name": "login"}}}
    spec = stream(source).spec.sources[0].kafka
    assert spec is not None
    config = client_config(_brokers(stream(source), spec, around))
    assert (config["bootstrap.servers"], config["security.protocol"]) == ("own:9092", "SASL_SSL")
    assert (config["sasl.username"], config["sasl.password"], config["sasl.mechanisms"]) == ("u", "p", "SCRAM-SHA-512")
    plain = {
        "kafka": {
            "bootstrapServers": "s:1",
            "securityProtocol": "SASL_PLAINTEXT",
            "saslMechanism": "PLAIN",
            "secretRef": {"name": "login"},
        }
    }
    config = client_config(_brokers(stream(source, **plain), spec, around))
    assert (config["security.protocol"], config["sasl.mechanisms"]) == ("SASL_PLAINTEXT", "PLAIN")
    (tmp_path / "login" / "password").unlink()
    with pytest.raises(ValueError, match="the Secret needs the key password"):
        client_config(_brokers(stream(source), spec, around))
