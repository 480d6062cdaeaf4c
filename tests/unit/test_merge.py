"""The merge of what several instances wrote: one order, whatever the interleaving, the kills and the memory at hand."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarden.bus.port import Record
from tidewarden_services.merge import Merge, MergeState

TOPIC = "local.s.anomalies"
Said = tuple[str, int, int, int]  # key, instance, input offset, time


def record(offset: int, said: Said) -> Record:
    key, instance, input_offset, time = said
    headers = {"producer": f"detect.d/{instance}", "input": f"local.s.readings/{instance}/{input_offset}"}
    return Record(TOPIC, 0, offset, key, [said], {**headers, "time": str(time)})


def foreign(offset: int) -> Record:
    return Record(TOPIC, 0, offset, "shop", [("shop", -1, offset, 0)], {"producer": "api"})


@st.composite
def logs(draw: st.DrawFn) -> tuple[int, list[Said | None]]:
    """Partitions, and a log in which each instance's own sequence is in order; None is a finding of another system."""
    partitions = draw(st.integers(1, 4))
    sequences: list[list[Said]] = []
    for instance in range(partitions):
        steps = draw(st.lists(st.tuples(st.sampled_from(["shop", "bank"]), st.integers(0, 2)), max_size=12))
        times: dict[str, int] = defaultdict(int)
        sequence: list[Said] = []
        for number, (key, step) in enumerate(steps):
            times[key] += step
            sequence.append((key, instance, number * 3, times[key]))
        sequences.append(sequence)
    log: list[Said | None] = []
    at = [0] * partitions
    for choice in draw(st.lists(st.integers(0, partitions + 1), max_size=80)):
        if choice == partitions:
            log.append(None)
        elif choice > partitions:  # somebody was replaced without knowing, and says the last of it again
            instance = draw(st.integers(0, partitions - 1))
            log += sequences[instance][max(0, at[instance] - 2) : at[instance]]
        elif at[choice] < len(sequences[choice]):
            log.append(sequences[choice][at[choice]])
            at[choice] += 1
    for instance, sequence in enumerate(sequences):
        log += sequence[at[instance] :]
    return partitions, log


@dataclass
class Reader:
    """Offers a log to a merge, and may be killed: then it goes on from its last snapshot, as the runtime does."""

    partitions: int
    log: list[Record]
    held_rows: int = 10**6
    merge: Merge = field(init=False)
    at: int = 0
    saved: tuple[int, bytes] | None = None
    answered: dict[int, list[list[Said]]] = field(default_factory=dict)  # offset → groups it set free

    def __post_init__(self) -> None:
        self.merge = self.fresh()

    def fresh(self) -> Merge:
        return Merge(self.partitions, lambda offsets: [self.log[at] for at in offsets], held_rows=self.held_rows)

    def step(self) -> None:
        record = self.log[self.at]
        groups = [[said for one in group for said in one.value] for group in self.merge.offer(record)]
        if groups:
            # Whatever was said before in answer to this record must be said again, no more and no less.
            assert self.answered.get(record.offset, groups) == groups
            self.answered[record.offset] = groups
        self.at += 1

    def save(self) -> None:
        self.saved = (self.merge.begin(), msgspec.msgpack.encode(self.merge.snapshot()))

    def kill(self) -> None:
        self.merge, self.at = self.fresh(), 0
        if self.saved is not None:
            self.at, state = self.saved
            self.merge.restore(msgspec.msgpack.decode(state, type=MergeState))
        else:
            self.answered = {}

    def groups(self) -> list[list[Said]]:
        return [group for _, groups in sorted(self.answered.items()) for group in groups]


def by_hand(partitions: int, log: list[Said | None], key: str) -> list[list[Said]]:
    """The slow, obvious oracle: everything an instance said of the key, sorted; what all have passed comes out."""
    said = sorted({s for s in log if s is not None and s[0] == key}, key=lambda s: (s[3], s[1], s[2]))
    shown = [max((s[3] for s in said if s[1] == instance), default=-1) for instance in range(partitions)]
    if partitions == 1:
        return [[s] for s in said]
    times = sorted({s[3] for s in said if s[3] < min(shown)})
    return [[s for s in said if s[3] == time] for time in times]


@settings(max_examples=300, deadline=None)
@given(logs(), st.sampled_from([0, 2, 10**6]))
def test_any_interleaving_gives_the_sorted_order_of_each_tenant(
    drawn: tuple[int, list[Said | None]], held_rows: int
) -> None:
    """What comes out of a tenant is sorted by time, instance and input, none of it twice; findings pass at once."""
    partitions, log = drawn
    reader = Reader(partitions, [foreign(i) if s is None else record(i, s) for i, s in enumerate(log)], held_rows)
    for _ in log:
        reader.step()
    found = reader.groups()
    for key in ("shop", "bank"):
        assert [g for g in found if g[0][0] == key and g[0][1] >= 0] == by_hand(partitions, log, key)
    assert [g[0][2] for g in found if g[0][1] < 0] == [i for i, s in enumerate(log) if s is None]
    assert all(reader.answered[i] == [[("shop", -1, i, 0)]] for i, s in enumerate(log) if s is None)


@settings(max_examples=300, deadline=None)
@given(logs(), st.sampled_from([0, 2, 10**6]), st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=6))
def test_kills_and_restores_at_any_record_change_nothing(
    drawn: tuple[int, list[Said | None]], held_rows: int, events: list[tuple[int, bool]]
) -> None:
    """Saved and killed anywhere, the merge hands on the same groups in answer to the same records."""
    partitions, log = drawn
    records = [foreign(i) if s is None else record(i, s) for i, s in enumerate(log)]
    calm, reader = Reader(partitions, records), Reader(partitions, records, held_rows)
    for _ in log:
        calm.step()
    for steps, is_kill in events:
        for _ in range(steps):
            if reader.at < len(log):
                reader.step()
        if is_kill:
            reader.kill()
        else:
            reader.save()
    while reader.at < len(log):
        reader.step()
    assert reader.answered == calm.answered


def test_one_instance_passes_at_once() -> None:
    """With one partition nothing waits, and a restart begins right behind what was read."""
    merge = Merge(1, lambda _: [])
    for offset in range(5):
        one = record(offset, ("shop", 0, offset, 0))
        assert list(merge.offer(one)) == [[one]]
        assert merge.begin() == offset + 1


def test_who_is_missing_is_said_and_what_waits_is_bounded() -> None:
    """While an instance is silent the others' records wait: few in memory, the rest to be read again, all in order."""
    log = [record(offset, ("shop", 0, offset, offset)) for offset in range(1000)]
    log.append(record(1000, ("shop", 1, 0, 999)))
    read_again: list[list[int]] = []

    def reread(offsets: list[int]) -> list[Record]:
        read_again.append(offsets)
        return [log[offset] for offset in offsets]

    merge = Merge(2, reread, held_rows=100)
    for one in log[:1000]:
        assert list(merge.offer(one)) == []
    waiting = merge.waiting()
    assert (waiting.records, waiting.rows, waiting.missing) == (1000, 100, ["detect.d/1"])
    assert merge.begin() == 0
    out = [group[0].offset for group in merge.offer(log[1000])]
    assert out == list(range(999))
    assert [offset for offsets in read_again for offset in offsets] == [*range(100, 999), 1000]
    assert max(len(offsets) for offsets in read_again) <= 101
    assert len(read_again) <= 10
    # The instances stand at the same time now: nobody is missing, and the newest instant waits for the next.
    assert merge.waiting().missing == []
    assert merge.waiting().records == 2


def test_an_instance_that_is_gone_for_good_does_not_hold_up_the_others_for_ever() -> None:
    """What lies further back than the bound is handed on without the missing one, and can be let go of by the bus."""
    merge = Merge(2, lambda _: [], held_records=200)
    out: list[int] = []
    for offset in range(1000):
        out += [group[0].offset for group in merge.offer(record(offset, ("shop", 0, offset, offset)))]
    assert out == list(range(len(out)))
    assert 790 <= len(out) <= 800
    assert merge.overtaken == len(out)
    assert merge.begin() == len(out)
