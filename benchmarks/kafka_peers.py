"""What a user might write instead, each as its documentation shows: a z-score for each series, anomalies published.

    python kafka_peers.py PEER ADDRESS TOPIC COUNT

Runs in an environment that has the peer and nothing of ours, one process on one core, on the topic with one
JSON message a reading. Prints one JSON line: readings, seconds of the core (all threads), seconds of the wall.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import uuid
from collections import defaultdict, deque
from typing import Any

WINDOW = 60
LIMIT = 6.0
WARM = 0.25  # of the messages, as of ours


class ZScore:
    """Distance from the mean of the last `WINDOW` readings, in their deviations; constant time."""

    def __init__(self) -> None:
        self._window: deque[float] = deque()
        self._sum = 0.0
        self._squares = 0.0

    def step(self, value: float) -> float:
        n = len(self._window)
        z = 0.0
        if n == WINDOW:
            mean = self._sum / n
            variance = self._squares / n - mean * mean
            z = (value - mean) / math.sqrt(variance) if variance > 1e-12 else 0.0
            oldest = self._window.popleft()
            self._sum -= oldest
            self._squares -= oldest * oldest
        self._window.append(value)
        self._sum += value
        self._squares += value * value
        return z


class Watch:
    """Takes the times once it is warm, and prints them at the end."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = 0
        self._warm = int(count * WARM)
        self._began = (0.0, 0.0)

    def note(self) -> bool:
        """One more; whether it was the last."""
        self._seen += 1
        if self._seen == self._warm:
            self._began = time.process_time(), time.perf_counter()
        if self._seen != self._count:
            return False
        cpu, wall = self._began
        result = {
            "readings": self._seen - self._warm,
            "cpu_s": time.process_time() - cpu,
            "wall_s": time.perf_counter() - wall,
        }
        print(json.dumps(result), file=sys.__stdout__, flush=True)  # faust takes sys.stdout for its log
        return True


def key_of(reading: dict[str, Any]) -> tuple[str, str, str, str]:
    return reading["tenant"], reading["cluster"], reading["node"], reading["metric"]


def plain(address: str, topic: str, watch: Watch, make: Any) -> None:
    """confluent-kafka and json in a loop; ``make`` gives each series a scorer with ``step``."""
    from confluent_kafka import Consumer, Producer

    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": f"plain-{uuid.uuid4().hex}",
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 10,  # as ours; with the default it would mostly wait
        }
    )
    producer = Producer({"bootstrap.servers": address, "linger.ms": 50})
    consumer.subscribe([topic])
    scorers: Any = defaultdict(make)
    while True:
        for message in consumer.consume(1000, 1.0):
            if message.error():
                continue
            reading = json.loads(message.value())
            z = scorers[key_of(reading)].step(reading["value"])
            if abs(z) > LIMIT:
                producer.produce("anomalies.plain", json.dumps({**reading, "z": z}), message.key())
            if watch.note():
                producer.flush(30)
                return
        producer.poll(0)


class Gaussian:
    """river's detector that comes nearest to a z-score; its limit is a probability."""

    def __init__(self) -> None:
        from river import anomaly

        self._model = anomaly.GaussianScorer()

    def step(self, value: float) -> float:
        score = float(self._model.score_one(None, value))
        self._model.learn_one(None, value)
        return 2 * LIMIT if score > 0.999999 else 0.0


def quix(address: str, topic: str, watch: Watch) -> None:
    """quix-streams with its scorers in memory, which is faster than its state in RocksDB."""
    from quixstreams import Application

    app = Application(
        broker_address=address,
        consumer_group=f"quix-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        consumer_extra_config={"fetch.queue.backoff.ms": 10},
        loglevel="ERROR",
    )
    readings = app.topic(topic, value_deserializer="json")
    anomalies = app.topic("anomalies.quix", value_serializer="json")
    scorers: Any = defaultdict(ZScore)

    def score(reading: dict[str, Any]) -> dict[str, Any]:
        reading["z"] = scorers[key_of(reading)].step(reading["value"])
        if watch.note():
            app.stop()
        return reading

    frame = app.dataframe(readings)
    frame = frame.apply(score)
    frame = frame[frame["z"].apply(lambda z: abs(z) > LIMIT)]
    frame.to_topic(anomalies)
    app.run()


def faust(address: str, topic: str, watch: Watch) -> None:
    """faust-streaming, one agent, scorers in memory."""
    import faust as library

    app = library.App(
        f"faust-{uuid.uuid4().hex}",
        broker=f"kafka://{address}",
        store="memory://",
        value_serializer="json",
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
    )
    readings = app.topic(topic)
    anomalies = app.topic("anomalies.faust")
    scorers: Any = defaultdict(ZScore)

    @app.agent(readings)
    async def score(stream: Any) -> None:
        async for reading in stream:
            z = scorers[key_of(reading)].step(reading["value"])
            if abs(z) > LIMIT:
                await anomalies.send(value={**reading, "z": z})
            if watch.note():
                os._exit(0)  # its worker takes seconds to end in order, and what is measured is printed

    library.Worker(app, loglevel="ERROR").execute_from_commandline()


def main() -> None:
    peer, address, topic, count = sys.argv[1:5]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    watch = Watch(int(count))
    if peer == "plain":
        plain(address, topic, watch, ZScore)
    elif peer == "river":
        plain(address, topic, watch, Gaussian)
    elif peer == "quix":
        quix(address, topic, watch)
    else:
        faust(address, topic, watch)


if __name__ == "__main__":
    main()
