"""One pod's process: what all roles share, and its life from the first probe to the last snapshot.

1. The side server answers from the first moment: alive, not ready.
2. Kafka, and whatever else the role needs, is waited for: a server that is away is no reason to end.
3. The role's stages are made and started, those that read first.
4. SIGTERM, the end of the role's work or a failed stage ends it: stages stop in the opposite order, each
   taking its last snapshot; then bus and store are closed.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import structlog

from tidewarden.bus.port import Bus
from tidewarden.clock import Clock, SystemClock
from tidewarden.frames import SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.resources.loader import Bundle
from tidewarden.settings import Settings
from tidewarden.status import Board, ProcessStatus
from tidewarden.telemetry import RecentErrors, Telemetry, figures_of
from tidewarden_cli.local.crew import Crew
from tidewarden_cli.run.probes import Answers, SideServer
from tidewarden_cli.run.pulse import Pulses
from tidewarden_services.state import StateStore

EXIT_FAILED = 1
EXIT_MISTAKE = 2
LOOK_EVERY_S = 0.2
TRY_AGAIN_S = 2.0
# Of the 30 s that Kubernetes gives: stages finish the records in hand (about a second each) and their snapshots,
# receivers get 5 s to take what is left, the bus flushes.
STOP_WITHIN_S = 15.0
TERMINATION_BYTES = 4_096  # what the kubelet keeps of a termination log

log = structlog.get_logger()

T = TypeVar("T")


class Orders(NamedTuple):
    """What the command line says."""

    role: str
    stream: str | None
    source: str | None
    name: str | None
    member: str | None


class StoppedError(Exception):
    """SIGTERM came while something was waited for."""


@dataclass(slots=True)
class _Stage:
    name: str
    run: Callable[[threading.Event], None]
    ends: bool


@dataclass(slots=True)
class Process:
    """What a role's builder finds, and where it puts what it makes.

    Args:
        orders: what to run.
        settings: where servers are.
        bundle: the resources.
        termination_log: where the last words go, if that file exists.
        errors: the log's last warnings and errors.
        telemetry: metrics and status board.
        clock: the wall clock, or a test's.
    """

    orders: Orders
    settings: Settings
    bundle: Bundle
    termination_log: Path
    errors: RecentErrors = field(default_factory=RecentErrors)
    telemetry: Telemetry = field(default_factory=Telemetry)
    clock: Clock = field(default_factory=SystemClock)
    table: SeriesTable = field(default_factory=SeriesTable)
    crew: Crew = field(default_factory=Crew)
    stream: MetricStream | None = None
    name: str = ""
    bus: Bus = field(init=False)
    state: StateStore = field(init=False)
    pulses: Pulses = field(init=False)
    partitions: set[int] = field(default_factory=set)
    adds: list[Callable[[Board], Board]] = field(default_factory=list)  # what roles add to the board when it is read
    _stages: list[_Stage] = field(default_factory=list)
    _closers: list[Callable[[], object]] = field(default_factory=list)
    _waiting_for: dict[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _code: int = 0
    _words: dict[str, Any] = field(default_factory=dict)
    _life: Any = "starting"
    _started_at: int = 0

    def __post_init__(self) -> None:
        self.pulses = Pulses(self.clock)
        self._started_at = self.clock.now_ms()
        self._waiting_for["start"] = "the process starts"
        self.telemetry.build.labels(self.orders.role, version("tidewarden")).set(1)

    # --- for builders ----------------------------------------------------------------------------

    def add_stage(self, name: str, run: Callable[[threading.Event], None], *, ends: bool = False) -> None:
        """A thread of the role; ``ends`` where it may return by itself. Those that read others' output come first."""
        self._stages.append(_Stage(name, run, ends))

    def closing(self, close: Callable[[], object]) -> None:
        """To be called at the end, the last one first."""
        self._closers.append(close)

    def wait_for(self, what: str, reason: str) -> None:
        """Not ready before `found` was called for ``what``; ``reason`` is what readiness says meanwhile."""
        self._waiting_for[what] = reason

    def found(self, what: str) -> None:
        """``what`` is there now."""
        self._waiting_for.pop(what, None)

    def patiently(self, what: str, attempt: Callable[[], T], away: tuple[type[Exception], ...]) -> T:
        """``attempt`` again and again while it raises one of ``away``; StoppedError when told to stop meanwhile."""
        told = ""
        while True:
            try:
                result = attempt()
            except away as error:
                if str(error) != told:
                    log.warning("waiting", service=self.orders.role, reason=str(error))
                told = str(error)
                self.wait_for(what, told)
            else:
                self.found(what)
                return result
            if self.clock.wait(self._stop, TRY_AGAIN_S):
                raise StoppedError

    def finish(self, code: int, words: dict[str, Any]) -> None:
        """The role's work is done: end with this exit code, and these words in the termination log."""
        self._code, self._words = code, words
        self._ended.set()

    # --- for the side server ---------------------------------------------------------------------

    def alive(self) -> list[str]:
        """What is wrong with this process so that only a new one helps."""
        failed = [] if self.crew.failure is None else [f"{self.crew.failure[0]} stopped: {self.crew.failure[1]}"]
        return [*failed, *self.pulses.stuck()]

    def ready(self) -> list[str]:
        """What is still waited for."""
        return list(self._waiting_for.values())

    def status(self) -> ProcessStatus:
        """The document at /status."""
        figures = figures_of(self.telemetry)
        board = self.telemetry.board.read()
        for name in sorted({*figures.lag, *figures.handled}):
            services = board.setdefault("services", {})
            counted = {"lag_records": figures.lag.get(name, 0), "handled": figures.handled.get(name, 0)}
            services[name] = {"state": "running", **counted, **services.get(name, {})}
        for add in self.adds:
            board = add(board)
        waiting_for = self.ready()
        return ProcessStatus(
            role=self.orders.role,
            name=self.name,
            namespace=self.settings.namespace,
            stream=None if self.stream is None else self.stream.metadata.name,
            member=self.orders.member,
            version=version("tidewarden"),
            started_at=self._started_at,
            at=self.clock.now_ms(),
            state=self._life,
            ready=not waiting_for,
            waiting_for=waiting_for,
            lag_records=sum(figures.lag.values()),
            partitions=sorted(self.partitions),
            errors=self.errors.read(),
            board=board,
            figures=figures,
        )

    # --- its life --------------------------------------------------------------------------------

    def run(self, build: Callable[[Process], None]) -> int:
        """Live; the exit code."""
        side = SideServer(
            self.settings.host,
            self.settings.metrics_port,
            Answers(self.telemetry.registry, self.alive, self.ready, self.status),
        )
        self._heed_signals()
        log.info("started", role=self.orders.role, name=self.name, metrics_port=side.port)
        try:
            build(self)
            self._work()
        except StoppedError:
            log.info("told to stop before it had begun")
        finally:
            self._close()
            side.stop()
        log.info("ended", role=self.orders.role, name=self.name, code=self._code)
        return self._code

    def _work(self) -> None:
        for stage in self._stages:
            self.crew.start(stage.name, self._watching(stage))
        self.found("start")
        self._life = "running"
        while not self._stop.wait(LOOK_EVERY_S) and not self._ended.is_set() and not self.crew.failed.is_set():
            continue
        self._life = "finished" if self._ended.is_set() else "stopping"
        self.wait_for("stop", "the process ends")
        deadline = self.clock.monotonic() + STOP_WITHIN_S
        for stage in reversed(self._stages):
            late = self.crew.stop(stage.name, max(0.0, deadline - self.clock.monotonic()))
            if late:
                log.warning("still busy, left behind", services=late)
        if self.crew.failure is not None and not self._ended.is_set():
            name, error = self.crew.failure
            self._life = "failed"
            self._code, self._words = EXIT_FAILED, {"error": f"{name} stopped: {error}"}

    def _watching(self, stage: _Stage) -> Callable[[threading.Event], None]:
        def run(stop: threading.Event) -> None:
            self.pulses.mine()
            try:
                stage.run(stop)
            finally:
                self.pulses.forget()
            if not stage.ends and not stop.is_set():
                raise RuntimeError(f"{stage.name} ended by itself")

        return run

    def _close(self) -> None:
        for close in reversed(self._closers):
            try:
                close()
            except Exception as error:  # one that cannot be closed must not keep the others from it
                log.warning("could not be closed", error=str(error))
        if self._words:
            write_last_words(self.termination_log, self._words)

    def _heed_signals(self) -> None:
        def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
            self._stop.set()

        signal.signal(signal.SIGINT, ask)
        signal.signal(signal.SIGTERM, ask)


def write_last_words(path: Path, words: dict[str, Any]) -> None:
    """Compact JSON for whoever looks at the pod after its end; only where Kubernetes has put the file there.

    A list under ``evaluation`` is cut to what fits into 4 KB; ``left_out`` says how many entries that cost.
    """
    if not path.exists():
        return
    rows = list(words.get("evaluation", []))
    text = json.dumps(words, separators=(",", ":"))
    while len(text.encode()) > TERMINATION_BYTES and rows:
        rows.pop()
        shorter = {**words, "evaluation": rows, "left_out": len(words["evaluation"]) - len(rows)}
        text = json.dumps(shorter, separators=(",", ":"))
    if len(text.encode()) > TERMINATION_BYTES:
        text = json.dumps({"error": str(words.get("error", ""))[: TERMINATION_BYTES // 8]}, separators=(",", ":"))
    try:
        path.write_text(text)
    except OSError as error:
        log.warning("the last words could not be written", path=str(path), error=str(error))
