"""A resource file with a mistake in it: the error names file, line, path, value and remedy."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from tidewarden.resources.loader import ResourceError, load

HEAD = "apiVersion: tidewarden.dev/v1alpha1\n"
STREAM = HEAD + "kind: MetricStream\nmetadata: {name: shop}\nspec: {tenants: [shop, bank]}\n"
DETECTOR = HEAD + "kind: AnomalyDetector\nmetadata: {name: shop-latency}\nspec: {stream: shop}\n"


def _detector(spec: str) -> str:
    body = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
    return (
        f"{HEAD}kind: AnomalyDetector\nmetadata: {{name: shop-latency}}\nspec:\n  stream: shop\n{body}\n---\n{STREAM}"
    )


def _policy(spec: str) -> str:
    return _detector(spec).replace("AnomalyDetector", "AlertPolicy")


def _simulation(spec: str) -> str:
    return f"{_detector(spec).replace('AnomalyDetector', 'MetricSimulation')}---\n{DETECTOR}"


# ruff: noqa: E501 - a table reads better with one mistake a line
# name: (file, then parts that the one reported line must contain, in order; it starts with "shop.yaml:LINE: ")
WRONG = {
    "both_budget_and_threshold": (
        _detector("alerting:\n  budget: 2/day\n  threshold: 0.8"),
        (6, "AnomalyDetector/shop-latency spec.alerting:", "both budget (2/day) and threshold (0.8): keep one"),
    ),
    "seasonal_without_a_season": (
        _detector("model: {kind: seasonal}\nseasonality: []"),
        (4, "spec:", "model seasonal needs a season, but seasonality is empty: write [1d]"),
    ),
    "star_in_the_middle": (
        _detector("select: {nodes: [web-*-eu]}"),
        (6, "spec.select.nodes[0]:", "'web-*-eu' has a * before its end: names may end in *, as in web-*"),
    ),
    "topic_with_spaces": (
        STREAM.replace("{tenants: [shop, bank]}", "\n  tenants: [shop]\n  sources: [{name: k, kafka: {topic: 'my topic'}}]"),
        (6, "spec.sources[0].kafka.topic:", "'my topic' is not a topic: write letters, digits, dots, hyphens"),
    ),
    "season_of_nothing": (
        _detector("seasonality: [0s]"),
        (6, "spec.seasonality[0]:", "'0s' is out of bounds: it must be at least 1s"),
    ),
    "warmup_below_a_season": (
        _detector("model: {kind: seasonal, seasonal: {warmup: 60}}\nseasonality: [2h]"),
        (6, "spec.model.seasonal.warmup:", "60 readings are 1h at the interval 1m", "write at least 120"),
    ),
    "metric_that_no_simulator_knows": (
        _simulation("fleet: {tenants: [shop], metrics: [latency]}"),
        (6, "spec.fleet:", "metric 'latency' is not built in: describe it under custom, or use latency_ms"),
    ),
    "sasl_without_a_secret": (
        STREAM.replace("{tenants: [shop, bank]}", "\n  tenants: [shop, bank]\n  kafka: {bootstrapServers: 'k:9092', securityProtocol: SASL_SSL}"),
        (6, "spec.kafka:", "securityProtocol SASL_SSL needs secretRef"),
    ),
    "prometheus_of_no_tenant": (
        STREAM.replace("{tenants: [shop, bank]}", "\n  tenants: [shop, bank]\n  sources: [{name: p, prometheus: {query: up}}]"),
        (6, "spec.sources[0].prometheus:", "source 'p' has no tenant, but the stream has several"),
    ),
    "unknown_field": (
        _detector("alerting: {treshold: 0.8}"),
        (6, "spec.alerting.treshold:", "no such field: did you mean 'threshold'?"),
    ),
    "snake_case": (
        _policy("group_by: [tenant]"),
        (6, "AlertPolicy/shop-latency spec.group_by:", "did you mean 'groupBy'?"),
    ),
    "unknown_field_far_off": (_detector("colour: red"), (6, "spec.colour:", "there are stream, select, model")),
    "unknown_kind": (
        HEAD + "kind: MetricStraem\nmetadata: {name: x}\n",
        (2, "MetricStraem/x kind:", "not one of MetricStream", "did you mean 'MetricStream'?"),
    ),
    "no_kind": (HEAD + "metadata: {name: x}\n", (1, "resource/x kind:", "is missing: write one of MetricStream")),
    "unknown_api_version": (
        STREAM.replace("v1alpha1", "v2"),
        (1, "MetricStream/shop apiVersion:", "'tidewarden.dev/v2' is unknown: write tidewarden.dev/v1alpha1"),
    ),
    "no_api_version": (STREAM.split("\n", 1)[1], (1, "apiVersion: is missing: write tidewarden.dev/v1alpha1")),
    "no_name": (
        STREAM.replace("{name: shop}", "{}"),
        (3, "MetricStream/? metadata.name:", "is missing: add it"),
    ),
    "bad_name": (STREAM.replace("name: shop", "name: Shop_1"), (3, "'Shop_1' is not a name: write lower-case")),
    "name_is_a_number": (STREAM.replace("name: shop", "name: 12"), (3, "metadata.name: 12 is read as a number")),
    "name_taken": (
        f"{STREAM}---\n{STREAM}",
        (8, "MetricStream/shop metadata.name: 'shop' is already taken, in ", "shop.yaml:3: rename or remove"),
    ),
    "norway": (_detector("select: {metrics: [no]}"), (6, "spec.select.metrics[0]: no is read as true or false", "quotes")),
    "bare_number_as_duration": (
        _detector("seasonality:\n- 1d\n- 60"),
        (8, "spec.seasonality[1]: 60 has no unit: write 60s, 60m or 60h"),
    ),
    "sexagesimal_duration": (_policy("wait: 1:30"), (6, "spec.wait: 1:30 is not a duration", "1h30m")),
    "words_as_duration": (_policy("resolveAfter: 5 minutes"), (6, "spec.resolveAfter: '5 minutes' is not a duration")),
    "bare_number_as_budget": (_detector("alerting: {budget: 2}"), (6, "2 has no period: write 2/day")),
    "bad_budget": (_detector("alerting: {budget: 2/fortnight}"), (6, "'2/fortnight' is not a budget", "2/day")),
    "duration_too_short": (
        _policy("receivers: [{webhook: {url: 'http://x/', timeout: 1ms}}]"),
        (6, "spec.receivers[0].webhook.timeout: 1ms is out of bounds: it must be at least 100ms"),
    ),
    "number_out_of_bounds": (
        _detector("alerting: {threshold: 1.5}"),
        (6, "spec.alerting.threshold: 1.5 is out of bounds: it must be at most 1"),
    ),
    "not_a_number": (_detector("alerting: {threshold: high}"), (6, "'high' does not fit: a number is needed")),
    "not_an_integer": (
        _simulation("fleet: {tenants: [shop], nodes: 2.5}"),
        (6, "spec.fleet.nodes: 2.5 does not fit: a whole number is needed"),
    ),
    "not_one_of": (_policy("minSeverity: warn"), (6, "'warn' is not one of info, warning, critical: did you mean 'warning'?")),
    "list_expected": (_policy("groupBy: tenant"), (6, "spec.groupBy: 'tenant' does not fit: a list is needed")),
    "not_an_address": (
        _policy("receivers: [{webhook: {url: example}}]"),
        (6, "spec.receivers[0].webhook.url: 'example' does not fit: an address such as https://"),
    ),
    "receiver_without_kind": (_policy("receivers: [{name: x}]"), (6, "spec.receivers[0]:", "no kind", "log, webhook")),
    "receiver_with_two": (
        _policy("receivers: [{log: {}, webhook: {url: 'http://x/'}}]"),
        (6, "log and webhook: give exactly one"),
    ),
    "no_tenants": (STREAM.replace("[shop, bank]", "[]"), (4, "spec.tenants: an empty list is too short", "1 entry")),
    "tenant_twice": (STREAM.replace("bank", "shop"), (4, "spec: tenant 'shop' is given twice")),
    "empty_field": (_detector("select:"), (6, "spec.select: is empty", "remove the field for its default")),
    "missing_spec": (STREAM.rsplit("spec", 1)[0], (1, "MetricStream/shop spec: is missing: add it")),
    "missing_tenants": (
        STREAM.replace("{tenants: [shop, bank]}", "{}"),
        (4, "spec.tenants: is missing: add it (", "refused"),
    ),
    "bad_rrule": (
        _policy("maintenance: [{rrule: FREQ=OFTEN, duration: 1h}]"),
        (6, "spec.maintenance[0].rrule: 'FREQ=OFTEN' is not an RFC 5545 recurrence rule"),
    ),
    "count_without_start": (
        _policy("maintenance: [{rrule: FREQ=DAILY;COUNT=3, duration: 1h}]"),
        (6, "spec.maintenance[0].rrule: 'FREQ=DAILY;COUNT=3' has COUNT but no DTSTART"),
    ),
    "every_second": (
        _policy("maintenance: [{rrule: FREQ=SECONDLY, duration: 1h}]"),
        (6, "spec.maintenance[0].rrule: 'FREQ=SECONDLY' begins every few seconds", "use MINUTELY"),
    ),
    "bad_zone": (
        _policy("maintenance: [{rrule: FREQ=DAILY, timezone: Berlin, duration: 1h}]"),
        (6, "spec.maintenance[0].timezone: 'Berlin' is not an IANA time zone, e.g. Europe/Berlin"),
    ),
    "model_block_of_another_kind": (
        _detector("model: {kind: ewma, mad: {}}"),
        (6, "spec.model: model.mad is set but kind is 'ewma'"),
    ),
    "no_such_stream": (
        DETECTOR.replace("stream: shop", "stream: shp") + "---\n" + STREAM,
        (4, "AnomalyDetector/shop-latency spec.stream: no MetricStream is called 'shp': did you mean 'shop'?"),
    ),
    "no_stream_at_all": (DETECTOR, (4, "spec.stream: no MetricStream is called 'shop': there is no MetricStream, add one")),
    "stream_in_another_namespace": (
        STREAM.replace("{name: shop}", "{name: shop, namespace: prod}") + "---\n" + DETECTOR,
        (9, "spec.stream: MetricStream 'shop' is in namespace 'prod', this resource in 'local'"),
    ),
    "no_such_detector": (
        _simulation("fleet: {tenants: [shop]}\nevaluate: [shop-latencies]"),
        (7, "spec.evaluate[0]: no AnomalyDetector is called 'shop-latencies': did you mean 'shop-latency'?"),
    ),
    "detector_of_another_stream": (
        _simulation("fleet: {tenants: [shop]}\nevaluate:\n- other")
        + "---\n" + STREAM.replace("name: shop", "name: web")
        + "---\n" + DETECTOR.replace("shop-latency", "other").replace("stream: shop", "stream: web"),
        (8, "spec.evaluate[0]: 'other' watches stream 'web', this simulation feeds 'shop'"),
    ),
    "simulated_tenant_unknown": (
        _simulation("fleet:\n  tenants: [shop, blank]"),
        (7, "spec.fleet.tenants[1]: 'blank' is not a tenant of MetricStream 'shop': did you mean 'bank'?"),
    ),
    "replay_tenant_unknown": (
        _simulation("replay: {dataset: nab-cloud}"),
        (6, "spec.replay.tenant: 'replay' is not a tenant of MetricStream 'shop': add it to spec.tenants"),
    ),
    "file_tenant_unknown": (
        STREAM.replace("bank]", "bank], sources: [{name: f, file: {path: x.csv, tenant: x}}]"),
        (4, "spec.sources[0].file.tenant: 'x' is not a tenant"),
    ),
    "selected_tenant_unknown": (_detector("select: {tenants: [s*, nobody]}"), (6, "spec.select.tenants[1]: 'nobody' is not")),
    "key_twice": (_detector("paused: true\npaused: false"), (7, "'paused' is given twice, first in line 6: remove one")),
    "yaml_indentation": (HEAD + "kind: MetricStream\n  metadata: {}\n", (3, "this is not YAML:", "column 11")),
    "yaml_tab": (HEAD + "\tkind: x\n", (2, "this is not YAML:", "column 1")),
    "not_a_mapping": ("hello\n", (1, "'hello' is not a resource: a mapping with apiVersion")),
    "impossible_date": (_simulation("fleet: {tenants: [shop]}\nstart: 2024-13-45"), (None, "a value cannot be read")),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named_with_file_line_path_value_and_remedy(name: str, tmp_path: Path) -> None:
    text, (line, *parts) = WRONG[name]
    file = tmp_path / "shop.yaml"
    file.write_text(text)
    with pytest.raises(ResourceError) as caught:
        load([file])
    assert len(caught.value.problems) == 1, str(caught.value)
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}: " if line else f"{file}: "), message
    at = 0
    for part in parts:
        assert part in message[at:], f"{part!r} is not in {message!r}"
        at = message.index(part, at)


def test_all_mistakes_of_all_files_come_together_in_the_order_of_the_lines(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        STREAM.replace("shop, bank", "shop, shop") + "---\n" + _detector("x: 1\npaused: 3")
    )
    (tmp_path / "b.json").write_text('{"kind": "MetricStream",\n "metadata" {}}')
    with pytest.raises(ResourceError) as caught:
        load([tmp_path, tmp_path / "absent.yaml"])
    places = [(Path(p.file).name, p.line) for p in caught.value.problems]
    assert places == [("a.yaml", 4), ("a.yaml", 11), ("a.yaml", 12), ("absent.yaml", None), ("b.json", 2)]
    assert "this is not JSON: Expecting ':' delimiter at column 13" in str(caught.value)
    assert "no such file or folder" in str(caught.value)


def test_a_broken_stream_is_not_reported_a_second_time_as_missing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(STREAM.replace("[shop, bank]", "[]") + "---\n" + DETECTOR)
    with pytest.raises(ResourceError) as caught:
        load([tmp_path])
    assert [p.path for p in caught.value.problems] == ["spec.tenants"]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"kind: \xff\n", "byte 0xff is not UTF-8"),
        (b"a: \x01\n", "this is not YAML"),
        (b"[" * 5000, "nested too deeply"),
        (b"", "no resources found"),
        (b"x" * (16 * 1024 * 1024 + 1), "is it a resource file?"),
    ],
    ids=["latin1", "control", "deep", "empty", "huge"],
)
def test_bytes_that_are_no_resource_file_give_an_error_not_a_crash(tmp_path: Path, data: bytes, part: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(data)
    with pytest.raises(ResourceError, match=part.replace("?", r"\?")):
        load([file])


def test_an_empty_folder_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"has no \.yaml, \.yml, \.json file"):
        load([tmp_path])


def test_yaml_json_lists_and_folders_load_to_the_same_resources(tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "a.yaml").write_text(f"# shop\n{STREAM}---\n---\n{DETECTOR}status: {{phase: Ready}}\n")
    (folder / "notes.txt").write_text("not a resource")
    bundle = load([folder])
    assert [s.metadata.name for s in bundle.streams] == ["shop"]
    assert [d.spec.stream for d in bundle.detectors] == ["shop"]
    assert bundle.base_dir_of(bundle.streams[0]) == folder

    items = [
        json.loads(r.model_dump_json(by_alias=True, exclude_none=True)) for r in (*bundle.streams, *bundle.detectors)
    ]
    as_json = tmp_path / "all.json"
    as_json.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent="\t"))
    again = load([as_json])
    assert (again.streams, again.detectors) == (bundle.streams, bundle.detectors)


def test_what_a_cluster_adds_to_metadata_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(STREAM.replace("{name: shop}", "{name: shop, uid: abc, resourceVersion: '7', generation: 1}"))
    assert load([file]).streams[0].metadata.name == "shop"
