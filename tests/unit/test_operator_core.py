"""The operator's parts without a cluster: queue, mirror, comparison, conditions, topics and indices, liveness."""

from __future__ import annotations

import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tidewarden.clock import ManualClock, SystemClock
from tidewarden.settings import ElasticsearchSettings, KafkaSettings
from tidewarden.topics import Topic
from tidewarden_operator.backends import BackendError, Indices, Keeper, Outcome, Request, Standing, Topics, steady
from tidewarden_operator.cluster.compare import differences, same_quantity
from tidewarden_operator.cluster.mirror import Mirror
from tidewarden_operator.conditions import Condition, merged, transitions
from tidewarden_operator.health import HealthServer, Pulse
from tidewarden_operator.keys import Key, Manifest, Ref
from tidewarden_operator.metrics import OperatorMetrics
from tidewarden_operator.plan.names import labels
from tidewarden_operator.queue import LONGEST_DELAY_S, Workers, WorkQueue

A, B = Key("MetricStream", "team", "a"), Key("MetricStream", "team", "b")


# --- the queue -----------------------------------------------------------------------------------


def test_a_key_waits_once_however_often_it_is_added() -> None:
    """Ten additions are one piece of work; of two times the earlier one counts."""
    clock = ManualClock()
    queue = WorkQueue(clock)
    for _ in range(10):
        queue.add(A, 5.0)
    queue.add(A, 1.0)
    queue.add(A, 9.0)
    assert queue.take(0.0) is None
    clock.advance(1.0)
    assert queue.take(0.0) == A
    clock.advance(60.0)
    assert queue.take(0.0) is None


def test_a_key_is_never_in_two_hands() -> None:
    """What is added while a worker has it comes after the worker is done, and others do not wait for it."""
    queue = WorkQueue(ManualClock())
    queue.add(A)
    assert queue.take(0.0) == A
    queue.add(A)
    queue.add(B)
    assert queue.take(0.0) == B
    assert queue.take(0.0) is None
    queue.done(A, failed=False)
    assert queue.take(0.0) == A


def test_failures_double_the_delay_up_to_a_bound_and_success_forgets_them() -> None:
    """0.5 s, 1 s, 2 s … 30 s, and 0.5 s again after a success."""
    clock = ManualClock()
    queue = WorkQueue(clock)
    queue.add(A)
    delays = []
    for _ in range(9):
        clock.advance(LONGEST_DELAY_S)
        assert queue.take(0.0) == A
        delays.append(queue.done(A, failed=True))
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    clock.advance(LONGEST_DELAY_S)
    assert queue.take(0.0) == A
    queue.done(A, failed=False)
    queue.add(A)
    assert queue.take(0.0) == A
    assert queue.done(A, failed=True) == 0.5


def test_workers_survive_what_they_work_on() -> None:
    """A piece of work that raises is told of and comes again; the thread goes on with the next one."""
    clock = SystemClock()
    queue = WorkQueue(clock)
    told: list[tuple[Key, str]] = []
    finished = threading.Event()

    def work(key: Key) -> None:
        if key == A and not told:
            raise ValueError("no luck")
        if key == A:
            finished.set()

    workers = Workers(queue, work, lambda key, error, _: told.append((key, str(error))), 1, "test", clock)
    workers.start()
    queue.add(A)
    queue.add(B)
    assert finished.wait(10)
    assert told == [(A, "no luck")]
    assert workers.stuck_s() < 5
    workers.stop(5.0)
    assert workers.stuck_s() == float("inf")


# --- the mirror ----------------------------------------------------------------------------------


def _object(name: str, version: int, uid: str = "u", **content: Any) -> Manifest:
    metadata = {"name": name, "namespace": "team", "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**metadata, "labels": labels(A, "x")}, **content}


def test_the_mirror_believes_the_newest_word() -> None:
    """A late word changes nothing, neither a change nor a deletion of what has been made anew since."""
    mirror = Mirror()
    ref = Ref("ConfigMap", "team", "one")
    mirror.put(_object("one", 5, data={"a": "new"}))
    mirror.put(_object("one", 3, data={"a": "old"}))
    known = mirror.get(ref)
    assert known is not None
    assert known["data"] == {"a": "new"}
    mirror.drop(_object("one", 6))
    assert mirror.get(ref) is None
    mirror.put(_object("one", 4))
    assert mirror.get(ref) is None, "a word from before the deletion brought it back"
    mirror.put(_object("one", 8, uid="another"))
    mirror.drop(_object("one", 6))
    assert mirror.get(ref) is not None


def test_a_list_removes_what_it_lacks_but_not_what_came_after_it() -> None:
    """What was deleted while a watch was blind is noticed; what was made since the list stays."""
    mirror = Mirror()
    mirror.put(_object("gone", 5, uid="g"))
    mirror.put(_object("young", 20, uid="y"))
    changed = mirror.replace("ConfigMap", [_object("new", 9, uid="n")], version=10)
    assert {ref.name for ref in changed} == {"gone", "new"}
    assert [child["metadata"]["name"] for child in mirror.children(A)] == ["new", "young"]


# --- the comparison ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("desired", "live", "expected"),
    [
        ({"a": 1}, {"a": 1, "filled": "in"}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["a.b"]),
        ({"a": {}}, {}, []),
        ({"ports": [{"name": "x", "port": 1}]}, {"ports": [{"name": "x", "port": 1, "protocol": "TCP"}]}, []),
        ({"env": [{"name": "A"}]}, {"env": [{"name": "INJECTED"}, {"name": "A"}]}, []),
        ({"env": [{"name": "A"}]}, {"env": []}, ["env.A"]),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}, ["args.0", "args.1"]),
        ({"args": ["a"]}, {"args": ["a", "b"]}, ["args"]),
        ({"limits": {"memory": "1024Mi", "cpu": "1000m"}}, {"limits": {"memory": "1Gi", "cpu": "1"}}, []),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1G"}}, ["limits.memory"]),
        ({"data": {"a": "1024Mi"}}, {"data": {"a": "1Gi"}}, ["data.a"]),
    ],
)
def test_differences_are_what_we_said_otherwise(desired: Any, live: Any, expected: list[str]) -> None:
    """Fields that others filled in are theirs; quantities are compared by amount, where quantities are."""
    assert list(differences(desired, live)) == expected


def test_quantities_of_kubernetes() -> None:
    """Every spelling of an amount is the same amount; text is none."""
    assert same_quantity("0.5", "500m")
    assert same_quantity("1e3", "1k")
    assert not same_quantity("1Mi", "1M")
    assert not same_quantity("abc", "abc")


# --- conditions ----------------------------------------------------------------------------------


def test_a_transition_time_changes_only_with_the_status() -> None:
    """Another reason or message keeps the time; another status sets it; the generation is always that looked at."""
    first = merged([Condition("Ready", "False", "Starting", "x")], [], 1, "t1")
    second = merged([Condition("Ready", "False", "Failing", "y")], first, 2, "t2")
    third = merged([Condition("Ready", "True", "AsPlanned")], second, 2, "t3")
    assert [c[0]["lastTransitionTime"] for c in (first, second, third)] == ["t1", "t1", "t3"]
    assert [c[0]["observedGeneration"] for c in (first, second, third)] == [1, 2, 2]
    assert [t.before for t in transitions([Condition("Ready", "True", "AsPlanned")], second)] == ["False/Failing"]
    assert transitions([Condition("Ready", "True", "AsPlanned", "other words")], third) == []


# --- topics and indices --------------------------------------------------------------------------


class Servers:
    """A Kafka and an Elasticsearch that are away while ``away`` says so."""

    def __init__(self) -> None:
        self.away = True
        self.asked = 0
        self.topics_made: list[str] = []
        self.prepared: list[str] = []

    def topics(self, kafka: KafkaSettings, namespace: str) -> Topics:
        return self

    def indices(self, elasticsearch: ElasticsearchSettings, namespace: str) -> Indices:
        return self

    def apply(self, topics: Sequence[Topic]) -> list[str]:
        self.asked += 1
        if self.away:
            raise BackendError("KafkaUnavailable", f"kafka:9092 is away, attempt {self.asked}")
        self.topics_made += [topic.name for topic in topics]
        return []

    def delete(self, names: Sequence[str]) -> None:
        self.topics_made = [name for name in self.topics_made if name not in names]

    def prepare(self, stream: str, retention_ms: int) -> None:
        self.prepared.append(stream)

    def drop(self, stream: str) -> None:
        self.prepared.remove(stream)


def _wish(name: str) -> Request:
    search = ElasticsearchSettings(url="http://search:9200")
    return Request(KafkaSettings(bootstrap_servers="kafka:9092"), (Topic(name, 1),), search, name, 1)


def test_a_kafka_that_is_away_is_asked_once_for_all_and_holds_up_no_index() -> None:
    """Of a hundred resources one waits for the timeout; the others get its word, and indices are made meanwhile."""
    servers = Servers()
    changed: list[Key] = []
    keeper = Keeper(servers, SystemClock(), 60.0, changed.append)
    keys = [Key("MetricStream", "team", f"s{n}") for n in range(100)]
    assert keeper.want(keys[0], _wish("s0")) == Standing()
    for key in keys:
        keeper.want(key, _wish(key.name))
    keeper.workers.start()
    until = threading.Event()
    for _ in range(400):
        if len(set(changed)) == 100:
            break
        until.wait(0.05)
    standing = keeper.want(keys[7], _wish("s7"))
    keeper.workers.stop(5.0)
    assert (standing.topics.ok, standing.topics.reason) == (False, "KafkaUnavailable")
    assert standing.topics.message.startswith("kafka:9092 is away")
    assert standing.store.ok is True
    assert servers.asked <= 4, "each of the two threads asks once in five seconds"
    assert set(servers.prepared) == {key.name for key in keys}


def test_it_heals_when_the_server_is_back() -> None:
    """Without anybody asking again, what was wanted is made, and the resource is told."""
    servers = Servers()
    servers.away = False
    healed = threading.Event()
    keeper = Keeper(servers, SystemClock(), 60.0, lambda _: healed.set())
    keeper.want(A, _wish("a"))
    keeper.workers.start()
    assert healed.wait(10)
    keeper.workers.stop(5.0)
    assert servers.topics_made == ["a"]
    assert keeper.want(A, _wish("a")).topics.ok is True


# --- liveness ------------------------------------------------------------------------------------


@pytest.fixture
def health() -> Iterator[tuple[HealthServer, list[str]]]:
    """A server of which the list says what is wrong."""
    wrong: list[str] = []
    server = HealthServer("127.0.0.1", 0, lambda: wrong, lambda: wrong, OperatorMetrics(), lambda: None)
    yield server, wrong
    server.stop()


def test_liveness_says_what_is_wrong(health: tuple[HealthServer, list[str]]) -> None:
    """503 with the reason while something is dead, 200 otherwise; metrics are served beside it."""
    server, wrong = health

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    assert get("/healthz") == (200, "ok\n")
    wrong.append("the watch of MetricStream is silent for 301 s")
    assert get("/healthz") == (503, "the watch of MetricStream is silent for 301 s\n")
    assert "tidewarden_operator_queue_depth 0.0" in get("/metrics")[1]
    assert get("/elsewhere")[0] == 404


def test_who_asks_and_goes_leaves_no_traceback(
    health: tuple[HealthServer, list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """A probe that hangs up before its answer is written is nobody's business; the next one is answered."""
    server, wrong = health
    wrong.append("x" * 4_000_000)  # more than socket buffers take: the server still writes when the client is gone
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert client.recv(100)
    wrong.clear()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=5) as answer:
        assert answer.status == 200
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(5)  # then it has said what there was to say
    assert "Traceback" not in capfd.readouterr().err


def test_a_watch_that_never_began_grows_old_as_one_that_ended() -> None:
    """Its age counts from the operator's start, so a watch that Kopf never made fails liveness, too."""
    clock = ManualClock()
    pulse = Pulse(clock)
    expected = {"/apis/a": "A", "/apis/b": "B"}
    clock.advance(10.0)
    pulse.watch("/apis/a")
    clock.advance(5.0)
    assert pulse.watch_ages(expected) == {"A": 5.0, "B": 15.0}
    assert pulse.loop_age_s() == 15.0


def test_a_server_that_stays_away_is_told_of_once() -> None:
    """Whatever a client says at later attempts, the condition keeps the first words: nothing is written again."""
    first = Outcome(False, "KafkaUnavailable", "timed out")
    assert steady(first, Outcome(False, "KafkaUnavailable", "connection refused")) == first
    assert steady(first, Outcome(True, "TopicsAsPlanned", "8 topics")).ok is True
    refused = Outcome(False, "TopicsRefused", "other words")
    assert steady(Outcome(False, "TopicsRefused", "words"), refused) == refused
