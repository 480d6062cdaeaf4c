"""What a poll of a foreign topic brings, as columns."""

from __future__ import annotations

from confluent_kafka import Message

from tidewarden.bus.kafka.raw import _by_partition


def message(partition: int, offset: int, value: bytes | None) -> Message:
    return Message(topic="t", partition=partition, offset=offset, value=value)


def test_messages_of_several_partitions_stay_in_order_with_their_own_offsets() -> None:
    """Runs that take turns, gaps within and between them, and tombstones: nothing moves to another place."""
    polled = [
        message(2, 7, b"a"),
        message(2, 8, b"b"),
        message(0, 3, b"c"),
        message(0, 5, None),
        message(0, 6, b"d"),
        message(2, 20, b"e"),
        message(300, 0, b"f"),
    ]
    found = [(part.partition, part.offsets, part.values) for part in _by_partition(polled)]
    assert found == [
        (0, [3, 5, 6], [b"c", b"", b"d"]),
        (2, [7, 8, 20], [b"a", b"b", b"e"]),
        (300, [0], [b"f"]),
    ]


def test_a_poll_of_nothing_sound_has_no_columns() -> None:
    """Where all that came were errors, there is no partition to speak of."""
    assert _by_partition([]) == []
