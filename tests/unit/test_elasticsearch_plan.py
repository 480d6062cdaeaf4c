"""What the Elasticsearch store would tell a server, and what it makes of the server's answers; no server needed."""

from __future__ import annotations

import pytest

from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.elasticsearch import queries
from tidewarden.store.elasticsearch.names import DATED, DAY_MS, KINDS, StreamNames, end_of, period_days, stream_of
from tidewarden.store.elasticsearch.templates import plan
from tidewarden.store.elasticsearch.upkeep import knows_ilm
from tidewarden.store.port import Query

NAMES = StreamNames("tidewarden", "team-a", "shop")
SETTINGS = ElasticsearchSettings(url="http://127.0.0.1:9200", shards=3, replicas=1)


def test_without_lifecycle_management_there_is_one_template_a_kind_and_no_policy() -> None:
    """Each kind has its pattern, alias and mapping; nothing names a lifecycle that the server would not know."""
    made = plan(SETTINGS, NAMES, 30 * DAY_MS, has_ilm=False)
    assert made.policies == {}
    assert set(made.templates) == {f"tidewarden.team-a.shop.{kind}" for kind in KINDS}
    body = made.templates["tidewarden.team-a.shop.readings"]
    assert body["index_patterns"] == ["tidewarden.team-a.shop.readings.*"]
    assert body["template"]["aliases"] == {"tidewarden.team-a.shop.readings": {}}
    assert body["template"]["settings"]["index"] == {
        "number_of_shards": "3", "number_of_replicas": "1", "refresh_interval": "1000ms",
    }  # fmt: skip
    assert body["template"]["mappings"]["dynamic"] == "strict"


def test_with_lifecycle_management_dated_kinds_have_a_policy_that_outlasts_the_retention() -> None:
    """The policy deletes an index one period after the retention, so never a reading that is still wanted."""
    made = plan(SETTINGS, NAMES, 30 * DAY_MS, has_ilm=True)
    assert made.policies[NAMES.policy]["phases"] == {
        "hot": {"min_age": "0ms", "actions": {}},
        "delete": {"min_age": f"{31 * 86_400}s", "actions": {"delete": {"delete_searchable_snapshot": True}}},
    }
    for kind in KINDS:
        index = made.templates[NAMES.template(kind)]["template"]["settings"]["index"]
        assert index.get("lifecycle") == ({"name": NAMES.policy} if kind in DATED else None), kind


def test_a_plan_is_the_same_each_time_and_differs_where_it_should() -> None:
    """Equal inputs give equal plans, which is what makes preparing idempotent."""
    assert plan(SETTINGS, NAMES, DAY_MS, has_ilm=True) == plan(SETTINGS, NAMES, DAY_MS, has_ilm=True)
    assert plan(SETTINGS, NAMES, DAY_MS, has_ilm=True) != plan(SETTINGS, NAMES, 2 * DAY_MS, has_ilm=True)
    assert plan(SETTINGS, NAMES, DAY_MS, has_ilm=False) != plan(SETTINGS, NAMES, 90 * DAY_MS, has_ilm=False)


def test_only_a_clear_yes_is_a_server_with_lifecycle_management() -> None:
    """Servers without x-pack answer 400, 404 or 405, users without rights get 403; a feature may be off."""
    assert knows_ilm(200, {"features": {"ilm": {"available": True, "enabled": True}}})
    assert not knows_ilm(200, {"features": {"ilm": {"available": True, "enabled": False}}})
    assert not knows_ilm(200, {"features": {}})
    assert not any(knows_ilm(status, {"error": "…"}) for status in (400, 403, 404, 405))
    assert not knows_ilm(200, "<html>")


@pytest.mark.parametrize("days", [1, 3, 30, 32, 33, 90, 365, 3650])
def test_a_stream_has_few_dated_indices_whatever_its_retention(days: int) -> None:
    """At most 32 parts hold the retention, and a month or less is held day by day."""
    assert -(-days // period_days(days * DAY_MS)) <= 32
    assert (period_days(days * DAY_MS) == 1) == (days <= 32)


@pytest.mark.parametrize("days", [1, 3, 12])
def test_every_moment_lies_in_an_index_that_ends_after_it(days: int) -> None:
    """A moment's index ends later than the moment, by no more than its days; its name tells the stream."""
    for at in (0, 1, -1, DAY_MS - 1, DAY_MS, 1_700_000_000_000, -40 * DAY_MS):
        index = NAMES.dated("scores", at, days)
        end = end_of(index)
        assert end is not None
        assert at < end <= at + days * DAY_MS
        assert stream_of(index) == "shop"
        assert NAMES.dated("scores", end - 1, days) == index


def test_times_beyond_the_calendar_have_an_index_and_foreign_names_no_end() -> None:
    """A timestamp in nanoseconds by mistake is kept like any other; an index that we did not name is left alone."""
    assert NAMES.dated("readings", 2**62, 1).endswith("9999.12.31")
    assert NAMES.dated("readings", -(2**62), 1).endswith(".0001.01.01")
    assert end_of("tidewarden.team-a.shop.readings.all") is None
    assert end_of("tidewarden.team-a.shop.readings.2026.13.45") is None


def test_streams_cannot_be_mistaken_for_one_another() -> None:
    """Names with hyphens do not run into each other: no stream's pattern holds another's index."""
    one, two = StreamNames("t", "a-b", "c"), StreamNames("t", "a", "b-c")
    assert not two.single("series").startswith(one.everything.removesuffix("*"))
    assert one.single("series") != two.single("series")


def test_every_search_is_bounded_and_sorted_and_names_are_only_names() -> None:
    """Sorted searches page; a name with signs of a regular expression is taken literally."""
    for body in (queries.readings(Query()), queries.scores(Query()), queries.anomalies(Query()), queries.latest("d")):
        assert body["sort"]
    (found,) = queries.alerts(Query(cluster="e.u*", metric="a|b"))["query"]["bool"]["filter"]
    assert found["regexp"]["series"]["value"] == r"[^/]*/e\.u\*/[^/]*/a\|b"
