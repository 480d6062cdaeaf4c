"""Through a real Kafka: one consumer process on one core, beside the same topic only consumed, and beside peers.

Speed is readings per second of a core: the CPU time of all threads of the process, which other work on the machine
hardly changes. ``ratio`` of ours is the share of what a process reaches that does nothing but take the same
messages out of the client, measured right before; of the peers, how many times faster ours is on the same topic.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.environments import PeerMissingError, python_of
from benchmarks.kafka_load import (
    FRAME_READINGS,
    METRICS,
    TOPICS,
    broker,
    fill_frames,
    fill_json,
    flat_messages,
    node_messages,
)
from benchmarks.report import Result, print_table

FRAME_POINTS = 3_000  # readings of each series in frames: 3 million in all
NODE_POINTS = 1_600  # 400,000 messages with four readings each
FLAT_POINTS = 400  # 400,000 messages with one each
WORKER_TIMEOUT_S = 600.0
ROOT = Path(__file__).parent.parent
# Messages that each peer gets: some seconds of a core.
PEERS = (
    ("plain", "confluent-kafka + json", "quix", 200_000),
    ("river", "river GaussianScorer in that loop", "quix", 100_000),
    ("quix", "quix-streams", "quix", 100_000),
    ("faust", "faust-streaming", "faust", 20_000),
)


def run() -> Iterator[Result]:
    """Frames, JSON in two shapes, peers."""
    with broker() as address:
        frames = fill_frames(address, FRAME_POINTS)
        readings = TOPICS.name("readings")
        alone = _speed(_ours("consume", address, readings, frames)) * FRAME_READINGS
        yield Result("kafka", "frames of 10,000: consume only", alone, "readings/s/core")
        for model in ("density", "auto", "ewma"):
            speed = _speed(_ours("frames", address, readings, frames, model))
            yield Result("kafka", f"frames of 10,000: detect pod, {model}", speed, "readings/s/core", speed / alone)
        for shape, a_message, messages in (
            ("node", len(METRICS), node_messages(NODE_POINTS)),
            ("flat", 1, flat_messages(FLAT_POINTS)),
        ):
            what = f"JSON, {a_message} reading{'s' if a_message > 1 else ''} a message"
            count = fill_json(address, shape, messages)
            alone = _speed(_ours("consume", address, shape, count)) * a_message
            yield Result("kafka", f"{what}: consume only", alone, "readings/s/core")
            for role, words in (("score", "parse, score density, publish"), ("ingest", "ingest pod")):
                speed = _speed(_ours(f"{role}-{shape}", address, shape, count))
                yield Result("kafka", f"{what}: {words}", speed, "readings/s/core", speed / alone)
                if (role, shape) == ("score", "flat"):
                    ours = speed
        yield from _peers(address, ours)


def _ours(role: str, address: str, topic: str, count: int, *more: str) -> dict[str, float]:
    return _said([sys.executable, "-m", "benchmarks.kafka_workers", role, address, topic, str(count), *more])


def _said(command: list[str], folder: Path = ROOT) -> dict[str, float]:
    """What a worker prints at its end, run in ``folder``."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WORKER_TIMEOUT_S, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    found: dict[str, float] = json.loads(lines[-1])
    print(f"  {' '.join(command[1:])}: {found}", file=sys.stderr)
    return found


def _speed(said: dict[str, float]) -> float:
    return said["readings"] / said["cpu_s"]


def _peers(address: str, ours: float) -> Iterator[Result]:
    for peer, words, environment, count in PEERS:
        try:
            python = python_of(environment)
        except PeerMissingError as error:
            print(f"{words} is left out: {error}", file=sys.stderr)
            continue
        program = str(Path(__file__).parent / "kafka_peers.py")
        with tempfile.TemporaryDirectory() as folder:  # some leave files where they run
            speed = _speed(_said([str(python), program, peer, address, "flat", str(count)], Path(folder)))
        yield Result("kafka", f"JSON, 1 reading a message: {words}, z-score", speed, "readings/s/core", ours / speed)


if __name__ == "__main__":
    print_table(run())
